"""What the split came to: counts, dates, and what was left out; and refusing one that cannot be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from millpond.core.errors import TrainingError
from millpond.core.time import format_instant, from_microseconds
from millpond.training.data import Floats, Instants

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class PartSummary:
    """One part of the split.

    Attributes:
        rows: Number of examples.
        positives: Examples whose answer is yes; None for regression.
        mean_label: Mean of the labels: the share of yes, or the mean number.
        first: Instant of the earliest example, UTC; None where examples have no time.
        last: Instant of the latest example.
    """

    rows: int
    positives: int | None
    mean_label: float
    first: datetime | None = None
    last: datetime | None = None


@dataclass(frozen=True)
class SplitSummary:
    """How the examples were split, and what was left out. Counts are rows.

    Attributes:
        by: "time", or "key" where examples have no time.
        train: The training part, after purging.
        validation: The validation part, after purging.
        test: The test part.
        validation_from: Where validation begins, UTC; None for a split by key.
        test_from: Where the test begins.
        end: Where the examples end, if that was asked for.
        null_labels: Examples left out because they have no label.
        null_times: Examples left out because they have no time.
        after_end: Examples left out because they are at or after `end`.
        purged_train: Training examples left out because their label was not known when validation began.
        purged_validation: Validation examples left out because their label was not known when the test began.
    """

    by: str
    train: PartSummary
    validation: PartSummary
    test: PartSummary
    validation_from: datetime | None = None
    test_from: datetime | None = None
    end: datetime | None = None
    null_labels: int = 0
    null_times: int = 0
    after_end: int = 0
    purged_train: int = 0
    purged_validation: int = 0

    def part(self, name: str) -> PartSummary:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def summarise_part(target: Floats, times: Instants | None, *, classification: bool) -> PartSummary:
    """Describe a part by its labels and its instants (microseconds)."""
    first = last = None
    if times is not None and len(times):
        first, last = from_microseconds(int(times.min())), from_microseconds(int(times.max()))
    mean = float(target.mean()) if len(target) else float("nan")
    return PartSummary(len(target), int(target.sum()) if classification else None, mean, first, last)


def require_parts(summary: SplitSummary, names: Sequence[str], subject: str) -> None:
    """Refuse a split that cannot be trained or judged on.

    Raises:
        TrainingError: A part is empty; or, for classification, has only one class.
    """
    counts = ", ".join(f"{name} {summary.part(name).rows}" for name in PARTS)
    lost = {
        "purged from train": summary.purged_train,
        "purged from validation": summary.purged_validation,
        "without label": summary.null_labels,
        "without time": summary.null_times,
        "at or after the end": summary.after_end,
    }
    counts += "".join(f", {count} {name}" for name, count in lost.items() if count)
    where = f"{subject}, split" + (
        f" (validation from {format_instant(summary.validation_from)}, test from {format_instant(summary.test_from)})"
        if summary.validation_from and summary.test_from
        else ""
    )
    for name in PARTS:
        part = summary.part(name)
        if part.rows == 0:
            raise TrainingError(f"the {name} part is empty ({counts})", where=where, hint=_empty_hint(name, summary))
        if part.positives in (0, part.rows) and names:
            only = names[1] if part.positives else names[0]
            raise TrainingError(
                f"all {part.rows} examples of the {name} part have the label {only!r} ({counts})",
                where=where,
                hint="a classifier needs both classes in every part: move the boundaries, or look at the label",
            )


def _empty_hint(name: str, summary: SplitSummary) -> str:
    purged = {"train": summary.purged_train, "validation": summary.purged_validation}.get(name, 0)
    if purged:
        return f"all its {purged} examples got their label after the next part began: look at label_known"
    if summary.by == "key":
        return "there are too few examples for these fractions"
    return "move the split's boundaries to where there are examples, or give them as fractions"
