"""What a serving process must know of a version beside its plan: plain data, so that it need not run its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from millpond.features.online.ports import OnlineView
from millpond.features.plan import plan_view
from millpond.features.ports import PinnedView
from millpond.platform.inline_features import InlineView
from millpond.platform.platform import Platform
from millpond.platform.versions import LoadedVersion


def describe_features(platform: Platform, loaded: LoadedVersion) -> dict[str, Any]:
    """Where the inputs of a version come from; `inline_views` reads it back.

    Returns:
        "needed": whether request rows are not raw inputs already. "inline": whether all that is needed may be looked
        up online, without the version's code. "views": the views, with the types that their tables have now; a table
        that changes them later has other views, which the store then does not hold under these fingerprints.
    """
    computed = loaded.declared is not None and bool(loaded.declared.request_features)
    return {
        "needed": bool(loaded.views) or computed,
        "inline": bool(loaded.views) and not computed,
        "views": list(_views(platform, loaded)),
    }


def inline_views(described: Mapping[str, Any]) -> Sequence[InlineView]:
    """The views that `describe_features` told of, also after a way through JSON."""
    return [
        InlineView(OnlineView.restore(each["view"]), each["refuses"], each["oldest"]) for each in described["views"]
    ]


def _views(platform: Platform, loaded: LoadedVersion) -> Iterator[dict[str, Any]]:
    for view in loaded.views:
        online = OnlineView.of(plan_view(PinnedView(view, platform.lake.snapshot(view.source.name))))
        limits = [each.limit.microseconds for each in view.features.values() if each.limit is not None]
        yield {
            "view": online.describe(),
            "refuses": view.entity.unknown == "refuse",
            "oldest": min(limits, default=None),
        }
