"""The report's plots as inline SVG whose colours and font are CSS variables, so that they follow the page's theme.

Variables: --ink, --muted, --grid, --accent, --second, --font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from millpond.training.evaluation import CalibrationBin, Curve, RegressionDetails
from millpond.training.importance import Importance
from millpond.training.tuning import Tuning

# Stand-ins that matplotlib draws with; each is replaced by its variable.
_INK, _MUTED, _GRID, _ACCENT, _SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", _ACCENT: "--accent", _SECOND: "--second"}

METRIC_LABELS = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}

#: Inputs shown in the importance plot.
MOST_BARS = 20


def roc(curve: Curve, auc: float) -> str:
    """The ROC curve with the diagonal of guessing."""
    with _figure(4.2, 3.6, f"ROC curve, area {auc:.3f}") as (axes, out):
        axes.plot([0, 1], [0, 1], color=_MUTED, linestyle=(0, (4, 4)), linewidth=1)
        axes.fill_between(curve.x, curve.y, color=_ACCENT, alpha=0.12, linewidth=0)
        axes.plot(curve.x, curve.y, color=_ACCENT, linewidth=2)
        axes.text(0.97, 0.05, f"area {auc:.3f}", ha="right", color=_INK, fontsize=11)
        axes.text(0.6, 0.54, "guessing", color=_MUTED, fontsize=9, rotation=39, rotation_mode="anchor")
        _unit_square(axes, "false alarms: share of no answered yes", "found: share of yes answered yes")
    return out[0]


def precision_recall(curve: Curve, area: float, prevalence: float) -> str:
    """The precision-recall curve with the level of guessing."""
    with _figure(4.2, 3.6, f"Precision-recall curve, average precision {area:.3f}") as (axes, out):
        axes.axhline(prevalence, color=_MUTED, linestyle=(0, (4, 4)), linewidth=1)
        axes.fill_between(curve.x, curve.y, step="post", color=_ACCENT, alpha=0.12, linewidth=0)
        axes.plot(curve.x, curve.y, color=_ACCENT, linewidth=2, drawstyle="steps-post")
        below = prevalence > 0.2  # where the label keeps clear of the line of guessing
        axes.text(0.03, 0.05 if below else 0.9, f"average precision {area:.3f}", color=_INK, fontsize=11)
        axes.text(0.02, prevalence + 0.015, f"guessing ({prevalence:.1%} are yes)", color=_MUTED, fontsize=9)
        _unit_square(axes, "found: share of yes answered yes", "right: share of yes answers that are yes")
    return out[0]


def calibration(bins: Sequence[CalibrationBin], *, probability: bool) -> str:
    """Mean output against what was observed, a bin a point."""
    with _figure(4.2, 3.6, "Calibration: predicted against observed") as (axes, out):
        predicted, observed = [each.predicted for each in bins], [each.observed for each in bins]
        low, high = min(*predicted, *observed), max(*predicted, *observed)
        margin = (high - low or abs(high) or 1.0) * 0.08
        ends = (low - margin, high + margin)
        if probability:
            ends = (max(ends[0], -0.02), min(ends[1], 1.02))
        axes.plot(ends, ends, color=_MUTED, linestyle=(0, (4, 4)), linewidth=1)
        axes.plot(predicted, observed, color=_ACCENT, linewidth=1.5, marker="o", markersize=5)
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        axes.set_xlabel("mean predicted probability" if probability else "mean predicted number")
        axes.set_ylabel("observed share of yes" if probability else "observed mean")
    return out[0]


def residuals(details: RegressionDetails) -> str:
    """Histogram of the residuals."""
    with _figure(4.2, 3.6, "Histogram of residuals") as (axes, out):
        edges = details.histogram_edges
        width = edges[1] - edges[0]
        axes.bar(edges[:-1], details.histogram_counts, width=width * 0.92, align="edge", color=_ACCENT)
        axes.axvline(0, color=_MUTED, linestyle=(0, (4, 4)), linewidth=1)
        axes.set_xlabel("predicted minus true")
        axes.set_ylabel("test rows")
    return out[0]


def importance(found: Sequence[Importance], metric: str, of: str) -> str:
    """Bars of the most important `of` them ("inputs", "feature views"), the first on top."""
    shown = list(found[:MOST_BARS])[::-1]
    label = METRIC_LABELS.get(metric, metric)
    with _figure(8.6, 0.7 + 0.24 * len(shown), f"Importance of {of} by {label}") as (axes, out):
        names = [each.name if each.inputs == 1 else f"{each.name} ({each.inputs} features)" for each in shown]
        losses = [each.loss for each in shown]
        axes.barh(names, losses, color=_ACCENT, height=0.66, xerr=[each.spread for each in shown], ecolor=_MUTED)
        axes.axvline(0, color=_MUTED, linewidth=0.8)
        axes.set_xlabel(f"{label} {'gained' if metric in ('rmse', 'mae', 'log_loss') else 'lost'} when shuffled")
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.6, len(shown) - 0.4)
    return out[0]


def tuning(search: Tuning, *, higher: bool) -> str:
    """Each trial's value, and the best so far."""
    tried = [(trial.number, trial.value) for trial in search.trials if trial.value is not None]
    best: list[float] = []
    for _, value in tried:
        best.append(value if not best else (max if higher else min)(best[-1], value))
    label = METRIC_LABELS.get(search.metric, search.metric)
    with _figure(8.6, 2.6, f"Tuning history of {label}") as (axes, out):
        numbers = [number for number, _ in tried]
        axes.plot(numbers, [value for _, value in tried], "o", color=_SECOND, markersize=4, label="trial")
        axes.step(numbers, best, where="post", color=_ACCENT, linewidth=1.8, label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(f"{label} on validation")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, labelcolor=_INK)
    return out[0]


def _unit_square(axes: Any, x: str, y: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


@contextmanager
def _figure(width: float, height: float, title: str) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, `width` by `height` inches; afterwards the list holds the SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 10,
        "text.color": _INK,
        "axes.labelcolor": _MUTED,
        "axes.edgecolor": _GRID,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "path.simplify": True,
    }
    out: list[str] = []
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot(), out
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    out.append(_inline(buffer.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """The bare `svg` element: no header, no namespaces or metadata (and so no address), themed, with a label."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", body)
    body = body.replace("xlink:href", "href")
    prefix = re.sub(r"\W+", "-", title.lower())
    body = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"(font: [\d.]+px) [^;\"]+", r"\1 var(--font)", body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    body = re.sub(r'<svg width="[\d.]+pt" height="[\d.]+pt"', f'<svg role="img" aria-label="{escape(title)}"', body)
    return re.sub(r"<!--.*?-->|\n\s*(?=<)", "", body, flags=re.DOTALL)
