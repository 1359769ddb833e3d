"""What is shown of feature views."""

from __future__ import annotations

from dataclasses import dataclass, field

from millpond.platform.feature_models import FeatureLine, Freshness, LineageStep, StatisticsBasis, ViewUse, ViewVersion


@dataclass(frozen=True)
class FeatureViewSummary:
    """A feature view in one line; `every` is its refresh interval, None when live; `models` are those that use it."""

    name: str
    description: str
    entity: str
    entity_keys: tuple[str, ...]
    source: str
    every: str | None
    features: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class FeatureViewPage:
    """All about a feature view.

    Attributes:
        summary: As in the overview.
        features: In order of declaration.
        time: The column that says when a row happened.
        known: The column that says when it became known.
        owner: As declared.
        tags: As declared.
        freshness: How new its values can be.
        basis: What the features' statistics were computed over; None where no training set holds the view.
        lineage: The tables that it is computed from, inputs first; the last is its source.
        versions: The meanings that it has had, newest first.
        uses: Model versions that were trained with it, newest first, and the champions of all models.
        pending: How what is declared differs from what was applied last, in words.
    """

    summary: FeatureViewSummary
    features: tuple[FeatureLine, ...]
    time: str | None
    known: str | None
    owner: str = ""
    tags: tuple[str, ...] = ()
    freshness: Freshness = field(default_factory=Freshness)
    basis: StatisticsBasis | None = None
    lineage: tuple[LineageStep, ...] = ()
    versions: tuple[ViewVersion, ...] = ()
    uses: tuple[ViewUse, ...] = ()
    pending: tuple[str, ...] = ()
