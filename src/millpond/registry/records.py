"""A version's records as JSON: how lineage is written beside a model and read back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from millpond.registry.ports import CodeState, Lineage


def lineage_to_json(lineage: Lineage) -> str:
    """Readable JSON. The diff is left out: it lies beside it, as a file that `git apply` takes."""
    record = asdict(lineage)
    record["code"].pop("diff")
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def lineage_from_json(text: str, diff: str) -> Lineage:
    """The inverse of `lineage_to_json`."""
    record: dict[str, Any] = json.loads(text)
    code = CodeState(**record.pop("code"), diff=diff)
    return Lineage(**record, code=code)
