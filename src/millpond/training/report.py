"""A trained model's report: one HTML page that needs nothing else, for a person who was not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from itertools import groupby
from typing import Any

from millpond.definitions.gates import METRICS
from millpond.training import plots, words
from millpond.training.split_summary import PARTS
from millpond.training.train import Trained

#: Trials shown in the tuning table, the best first.
MOST_TRIALS = 15


@dataclass(frozen=True)
class Heading:
    """What the page says of the model beside the findings.

    Attributes:
        version: Number of the version, where it has one already.
        description: The model's description.
        owner: Who answers for it.
        trained_at: When it was trained; UTC.
        trained_by: Who trained it.
    """

    version: int | None = None
    description: str = ""
    owner: str = ""
    trained_at: datetime | None = None
    trained_by: str = ""


def render(trained: Trained, *, heading: Heading | None = None, lineage: Mapping[str, Any] | None = None) -> str:
    """The report as one HTML page: no request goes out of it, no script runs in it; follows light and dark.

    Args:
        trained: What was trained.
        heading: What stands above the findings.
        lineage: What the model was made of: label -> text, or list of texts, or mapping of name to text (such as
            {"Training set": "training.late@42", "Sources": {"flights": "7"}, "Packages": {...}}).
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "number": words.number,
        "plain": words.plain,
        "short": words.short,
        "count": words.count,
        "percent": words.percent,
        "instant": words.instant,
    }
    source = files("millpond.training").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        trained=trained,
        heading=heading or Heading(),
        verdict=words.verdict(trained),
        metric_rows=_metric_rows(trained),
        left_out=_left_out(trained),
        parts=[(name, trained.split.part(name)) for name in PARTS],
        plots={name: Markup(svg) for name, svg in _plots(trained).items()},  # noqa: S704
        slice_groups=_slice_groups(trained),
        slice_metrics=_SLICE_METRICS[trained.task],
        metric_names=words.METRIC_NAMES,
        trials=_trials(trained),
        lineage={label: _lines(value) for label, value in (lineage or {}).items()},
        stages=[(name, seconds) for name, seconds in trained.seconds.items()],
    )


_SLICE_METRICS = {"classification": ("roc_auc", "log_loss", "precision", "recall"), "regression": ("rmse", "mae", "r2")}


def _metric_rows(trained: Trained) -> list[dict[str, Any]]:
    rows = []
    for metric, higher in METRICS[trained.task].items():
        if f"test.{metric}" not in trained.metrics:
            continue
        name, meaning = words.METRIC_NAMES[metric]
        columns = [f"{part}.{metric}" for part in ("test", "validation", "train", "baseline.test", "champion.test")]
        test, *others = (trained.metrics.get(column) for column in columns)
        base = others[2]
        rows.append(
            {
                "name": name,
                "meaning": meaning,
                "values": [test, *others],
                "better": base is not None and test is not None and (test > base if higher else test < base),
            }
        )
    return rows


def _left_out(trained: Trained) -> list[tuple[str, int]]:
    split = trained.split
    found = [
        ("have no label (null)", split.null_labels),
        ("have no time (null)", split.null_times),
        (f"are at or after the end of the split, {words.instant(split.end)}", split.after_end),
        ("of the training part: their label was not known yet when validation began", split.purged_train),
        ("of the validation part: their label was not known yet when the test began", split.purged_validation),
    ]
    return [(text, rows) for text, rows in found if rows]


def _plots(trained: Trained) -> dict[str, str]:
    evaluation, test = trained.evaluation, trained.split.test
    found = {"calibration": plots.calibration(evaluation.calibration, probability=trained.task == "classification")}
    if evaluation.classification is not None:
        details = evaluation.classification
        found["roc"] = plots.roc(details.roc, trained.metrics["test.roc_auc"])
        area = trained.metrics["test.pr_auc"]
        found["precision_recall"] = plots.precision_recall(details.precision_recall, area, test.mean_label)
    if evaluation.regression is not None:
        found["residuals"] = plots.residuals(evaluation.regression)
    importances = evaluation.importance
    found["importance"] = plots.importance(importances.by_input, importances.metric, "inputs")
    if importances.by_group:
        found["importance_by_group"] = plots.importance(importances.by_group, importances.metric, "feature views")
    if trained.tuning is not None and len(trained.tuning.trials) > 1:
        found["tuning"] = plots.tuning(trained.tuning, higher=METRICS[trained.task][trained.tuning.metric])
    return found


def _slice_groups(trained: Trained) -> list[tuple[str, list[Any]]]:
    return [(column, list(group)) for column, group in groupby(trained.evaluation.slices, key=lambda each: each.column)]


def _trials(trained: Trained) -> list[Any]:
    if trained.tuning is None:
        return []
    sign = -1 if METRICS[trained.task][trained.tuning.metric] else 1
    ranked = sorted(
        trained.tuning.trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0), trial.number)
    )
    return ranked[:MOST_TRIALS]


def _lines(value: Any) -> list[tuple[str, str]]:
    """A lineage entry as (name, text) lines; the name is empty for plain texts."""
    if isinstance(value, Mapping):
        return [(str(name), str(text)) for name, text in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [("", str(text)) for text in value]
    return [("", str(value))]
