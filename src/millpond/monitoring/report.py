"""The nouns of measured skew: what was served, beside what the lake gives for the same instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class SkewExample:
    """One prediction whose served value is not the recomputed one.

    Attributes:
        prediction_id: The prediction.
        as_of: The instant of its features; UTC.
        served: The value that the model saw; None for null.
        recomputed: The value that the lake gives for the same instant now; None for null.
        receipt: Path of the prediction's receipt in the console.
        rows: Number of rows behind the recomputed value; None for features of the request.
        row_keys: Keys of up to five of them, newest first, as text.
        arrived: Number of rows that are visible at that instant now, and were not there when it was served; None
            where that cannot be known.
        arrived_keys: Keys of up to five of them, newest first.
        gone: Number of rows that were visible when it was served, and are not there any more (or otherwise); None
            where that cannot be known.
        gone_keys: Keys of up to five of them, newest first.
        why: What that says, in words; empty where nothing is known.
    """

    prediction_id: str
    as_of: datetime
    served: Any
    recomputed: Any
    receipt: str
    rows: int | None = None
    row_keys: tuple[str, ...] = ()
    arrived: int | None = None
    arrived_keys: tuple[str, ...] = ()
    gone: int | None = None
    gone_keys: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class FeatureSkew:
    """One feature over all predictions that were looked at; `compared + missing` is their number.

    Attributes:
        feature: Full name, `{view}__{feature}`.
        view: The feature view, or the request features, that it belongs to.
        meaning: Fingerprint of what the feature means; equal in two versions that mean the same by it.
        tolerance: Relative difference up to which two values are equal; 0 is bit for bit.
        compared: Predictions whose value was compared: `equal + different`.
        equal: Of these, the equal ones; null equals null.
        different: Of these, the others.
        only_served: Of the different ones, those that served a value where null was recomputed.
        only_recomputed: Of the different ones, those that served null where a value was recomputed.
        missing: Predictions that could not be compared; `reason` says why.
        largest_absolute: Greatest absolute difference of two numbers, equal ones included; None without numbers.
        largest_relative: Greatest difference divided by the greater of the two magnitudes; None without numbers.
        reason: Why values are missing; empty where none is.
        examples: Up to three differing predictions, null beside a value first, then the greatest difference.
    """

    feature: str
    view: str
    meaning: str
    tolerance: float
    compared: int
    equal: int
    different: int
    only_served: int
    only_recomputed: int
    missing: int
    largest_absolute: float | None
    largest_relative: float | None
    reason: str = ""
    examples: tuple[SkewExample, ...] = ()

    @property
    def share(self) -> float:
        """Share of the predictions whose value is not shown to be equal; 0 over none."""
        total = self.compared + self.missing
        return (self.different + self.missing) / total if total else 0.0


@dataclass(frozen=True)
class SkewReport:
    """One measurement of one version.

    Attributes:
        id: The measurement's id.
        model: The model's name.
        version: The version's number.
        measured_at: When; UTC.
        measured_by: Who asked for it.
        predictions: Logged predictions of the version in the window.
        looked_at: How many of them were looked at.
        sample: The greatest number that was to be looked at; None for all.
        since: Start of the window on when predictions were answered; None is the first.
        until: End of the window (exclusive); None is now.
        newest: When the newest prediction of the window was answered.
        snapshots: Table -> snapshot that values were recomputed from.
        features: The features; those that differ first, then those with missing values, then in order of the model.
    """

    id: str
    model: str
    version: int
    measured_at: datetime
    measured_by: str
    predictions: int
    looked_at: int
    sample: int | None
    since: datetime | None
    until: datetime | None
    newest: datetime
    snapshots: Mapping[str, int]
    features: tuple[FeatureSkew, ...]

    @property
    def clean(self) -> bool:
        """Whether every value was compared and is equal."""
        return not any(each.different or each.missing for each in self.features)


def worst_first(features: tuple[FeatureSkew, ...]) -> tuple[FeatureSkew, ...]:
    """The features that differ first, then those with missing values, each by share; the rest as they came."""
    return tuple(sorted(features, key=lambda each: (not each.different, not each.missing, -each.share)))
