"""Events applied to the live state of a view, within one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millpond.core.errors import StoreMismatch
from millpond.features.online.environment import Environment
from millpond.features.online.events import Place, ViewRows
from millpond.features.online.live import LiveView
from millpond.features.online.ports import OnlineView, Row
from millpond.features.online.transactions import Writes, after

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LiveRules:
    """How a live view's state is kept and read. Safe across threads."""

    view: OnlineView
    rows: ViewRows
    live: LiveView

    @classmethod
    def of(cls, view: OnlineView) -> LiveRules:
        return cls(view, ViewRows(view), LiveView(view))

    def check_key(self, key: tuple[str, ...]) -> None:
        """Refuse events of a table whose key is another than the one the view was loaded under."""
        if self.view.row_keys != key:
            raise StoreMismatch(
                f"Events of table {self.view.table!r} come with key ({', '.join(key)}), and the online state of view "
                f"{self.view.name!r} was loaded under key ({', '.join(self.view.row_keys)})",
                hint="run `millpond feature refresh --full`, and drop the state of views that are declared no more",
            )

    def apply(self, environment: Environment, txn: Any, prefix: bytes, events: pa.Table) -> int:
        """Insert rows, each in place of the row of the same key; by how much the number of entities grew."""
        kv, places = Writes(txn, environment.live), environment.places
        taken = self.rows.take(events)
        existed: dict[bytes, bool] = {}
        keys = self.rows.keys.encode_columns(taken)
        for key, (place, row) in zip(keys, self.rows.rows(taken), strict=True):
            name = prefix + key if key is not None else None  # logged under another key, which was given up
            before = txn.get(name, None, places) if name is not None else None
            if before is not None:
                old = Place.from_bytes(before)
                existed.setdefault(old.entity, True)
                values = self.rows.packing.unpack(old.values)
                self.live.remove(kv, prefix, old.entity, Row(old.time, old.known, row.key, values))
            if place is not None:
                if place.entity not in existed:
                    existed[place.entity] = holds(kv, prefix + place.entity)
                self.live.insert(kv, prefix, place.entity, row)
                if name is not None:
                    txn.put(name, place.to_bytes(), db=places)
            elif before is not None:
                txn.delete(name, db=places)
        return sum(holds(kv, prefix + entity) - before for entity, before in existed.items())


def holds(kv: Writes, prefix: bytes) -> bool:
    """Whether there is any entry that begins with `prefix`."""
    return next((True for _ in kv.scan(prefix, after(prefix))), False)
