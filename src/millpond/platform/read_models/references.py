"""What has a page, and what flows into what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["table", "view", "model", "deployment"]


@dataclass(frozen=True)
class Reference:
    """Something that has a page."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Edge:
    """What flows into what: table -> table or view or model, view -> model, model -> deployment."""

    source: Reference
    target: Reference
