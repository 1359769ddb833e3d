"""Train before validation before test; nothing in a part whose label became known after the next part began.

Examples without a time are split by a hash of their key: BLAKE2b of the key's values, as a number in [0, 1), does not
depend on the order of the rows, on the process or on the machine; the same key is in the same part for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millpond.core.errors import TrainingError
from millpond.core.time import format_instant, from_microseconds, parse_boundary, to_microseconds
from millpond.definitions.models import Split
from millpond.training.data import Floats, Instants, Labels, Rows, TrainingData, instants
from millpond.training.split_summary import PartSummary, SplitSummary, require_parts, summarise_part

if TYPE_CHECKING:
    import pyarrow as pa

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Assignment:
    """Which rows are in which part (ascending row numbers), the boundaries in microseconds, and the purged rows."""

    train: Rows
    validation: Rows
    test: Rows
    validation_from: int | None = None
    test_from: int | None = None
    purged_train: int = 0
    purged_validation: int = 0


def boundaries(split: Split, times: Instants, subject: str) -> tuple[int, int]:
    """Where validation and test begin, in microseconds since 1970.

    A fraction becomes the instant of an example, so that examples of one instant are never torn apart: of all
    instants the one that gives the share nearest to what was asked for (the earlier of two equally near), with at
    least one instant left for each earlier part.

    Args:
        split: The declaration.
        times: Instants of the examples to split; microseconds; any order.
        subject: The model, for errors.

    Raises:
        TrainingError: Fractions of fewer than three different instants.
    """
    if isinstance(split.validation, str) and isinstance(split.test, str):
        return to_microseconds(parse_boundary(split.validation)), to_microseconds(parse_boundary(split.test))
    distinct, counts = np.unique(times, return_counts=True)
    if len(distinct) < 3:
        raise TrainingError(
            f"the {len(times)} examples have only {len(distinct)} different instants",
            where=f"{subject}, split",
            hint="three are needed: one each for train, validation and test; is `at` the right column?",
        )
    from_here = np.cumsum(counts[::-1])[::-1]
    test_share = float(split.test)
    both_share = test_share + float(split.validation)
    test = 2 + int(np.argmin(np.abs(from_here[2:] - test_share * len(times))))
    validation = 1 + int(np.argmin(np.abs(from_here[1:test] - both_share * len(times))))
    return int(distinct[validation]), int(distinct[test])


def split_by_time(times: Instants, known: Instants, unknown: Mask, begins: tuple[int, int]) -> Assignment:
    """Assign rows to parts by their instant, and purge.

    Args:
        times: Instant of each row; microseconds since 1970.
        known: Instant at which each row's label became known.
        unknown: Rows for which that instant is null: they count as known after every boundary.
        begins: Where validation and test begin. A row at a boundary belongs to the later part; a label known at
            exactly a boundary is known there.
    """
    validation_from, test_from = begins
    in_train = times < validation_from
    in_validation = ~in_train & (times < test_from)
    late_train = in_train & (unknown | (known > validation_from))
    late_validation = in_validation & (unknown | (known > test_from))
    return Assignment(
        np.flatnonzero(in_train & ~late_train),
        np.flatnonzero(in_validation & ~late_validation),
        np.flatnonzero(times >= test_from),
        validation_from,
        test_from,
        int(late_train.sum()),
        int(late_validation.sum()),
    )


def split_by_key(split: Split, keys: Sequence[Sequence[Any]], subject: str) -> Assignment:
    """Assign rows to parts by a stable hash of their key.

    Args:
        split: The declaration; its boundaries must be fractions.
        keys: The key columns, each with a value a row.
        subject: The model, for errors.

    Raises:
        TrainingError: A boundary is an instant, or there is no key.
    """
    if isinstance(split.validation, str) or isinstance(split.test, str) or split.end is not None:
        raise TrainingError(
            "the split names instants, but the examples have no time",
            where=f"{subject}, split",
            hint="name the column with the instant of prediction in `at`, or give the split as fractions",
        )
    if not keys:
        raise TrainingError(
            "the examples have neither a time nor a key to split by",
            where=f"{subject}, split",
            hint="declare `key=` on the examples table, or name the instant's column in `at`",
        )
    place = np.array([key_fraction(values) for values in zip(*keys, strict=True)], dtype=np.float64)
    in_test = place >= 1 - split.test
    in_validation = ~in_test & (place >= 1 - split.test - split.validation)
    return Assignment(np.flatnonzero(~in_test & ~in_validation), np.flatnonzero(in_validation), np.flatnonzero(in_test))


def key_fraction(values: Sequence[Any]) -> float:
    """A key's place in [0, 1): the first 52 bits of BLAKE2b over its values' types and texts. Instants count in UTC."""
    parts = [format_instant(value) if isinstance(value, datetime) and value.tzinfo else str(value) for value in values]
    kinds = [type(value).__name__ for value in values]
    text = "\x1f".join(f"{kind}:{part}" for kind, part in zip(kinds, parts, strict=True))
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 12) / (1 << 52)


def split_examples(
    split: Split, data: TrainingData, rows: pa.Table, labels: Labels, subject: str
) -> tuple[Assignment, SplitSummary]:
    """Split a training set: leave out what has no label or time or is after the end, assign, purge, and describe.

    Args:
        split: The declaration.
        data: What the columns are for.
        rows: The ordered rows.
        labels: Their labels.
        subject: The model, for errors.

    Returns:
        Row numbers of `rows` by part, ascending; and the summary.

    Raises:
        TrainingError: A part is empty or has one class only, or the split does not fit the examples.
    """
    target, names = labels.values, labels.names
    labelled = ~np.isnan(target)
    null_labels = data.null_labels + int((~labelled).sum())
    if data.at is None:
        kept = np.flatnonzero(labelled)
        keys = [rows[key].take(kept).to_pylist() for key in data.keys]
        assignment = _renumber(split_by_key(split, keys, subject), kept)
        summary = _summary(assignment, target, None, names, null_labels=null_labels)
    else:
        times, timeless = instants(rows, data.at, subject)
        known, unknown = instants(rows, data.label_known, subject) if data.label_known else (times, timeless)
        end = parse_boundary(split.end) if split.end else None
        late = labelled & ~timeless & (times >= to_microseconds(end)) if end else np.zeros(len(times), dtype=bool)
        kept = np.flatnonzero(labelled & ~timeless & ~late)
        if not len(kept):
            counts = f"{null_labels} without label, {int((labelled & timeless).sum())} without time"
            raise TrainingError(
                f"no examples are left to split ({counts}, {int(late.sum())} at or after the end)",
                where=f"{subject}, split",
                hint="look at the label, at the column named by `at`, and at the split's `end`",
            )
        begins = boundaries(split, times[kept], subject)
        assignment = _renumber(split_by_time(times[kept], known[kept], unknown[kept], begins), kept)
        summary = _summary(
            assignment,
            target,
            times,
            names,
            null_labels=null_labels,
            null_times=int((labelled & timeless).sum()),
            after_end=int(late.sum()),
            end=end,
        )
    require_parts(summary, names, subject)
    return assignment, summary


def _renumber(assignment: Assignment, kept: Rows) -> Assignment:
    return replace(
        assignment,
        train=kept[assignment.train],
        validation=kept[assignment.validation],
        test=kept[assignment.test],
    )


def _summary(
    assignment: Assignment, target: Floats, times: Instants | None, names: Sequence[str], **left_out: Any
) -> SplitSummary:
    def part(rows: Rows) -> PartSummary:
        return summarise_part(target[rows], None if times is None else times[rows], classification=bool(names))

    def instant(value: int | None) -> datetime | None:
        return None if value is None else from_microseconds(value)

    return SplitSummary(
        by="key" if times is None else "time",
        train=part(assignment.train),
        validation=part(assignment.validation),
        test=part(assignment.test),
        validation_from=instant(assignment.validation_from),
        test_from=instant(assignment.test_from),
        purged_train=assignment.purged_train,
        purged_validation=assignment.purged_validation,
        **left_out,
    )
