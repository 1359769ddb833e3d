"""Reading one committed state: a transaction of its own, and as little Python as possible around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lmdb  # noqa: TID253 - this module is imported where a store is opened

from millpond.core.errors import NotFound, StoreMismatch
from millpond.features.online import records
from millpond.features.online.applying import LiveRules
from millpond.features.online.environment import Environment, errors
from millpond.features.online.keys import KeyCodec
from millpond.features.online.packing import Packing
from millpond.features.online.ports import EntityKey, Mark, OnlineView, ViewState
from millpond.features.online.records import PREFIX
from millpond.features.online.transactions import Reads

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Handle:
    """What reading a view needs, made once. Safe across threads."""

    view: OnlineView

    @cached_property
    def id(self) -> bytes:
        return records.view_id(self.view)

    @cached_property
    def encode(self) -> Callable[[EntityKey], bytes]:
        return KeyCodec(self.view.entity_keys, self.view.types).encode

    @cached_property
    def packed(self) -> Packing:
        return Packing.of_features(self.view)

    @cached_property
    def rules(self) -> LiveRules:
        return LiveRules.of(self.view)


class LmdbReader:
    """`OnlineReader` on a transaction; also the block that the transaction lasts for."""

    __slots__ = ("_environment", "_handle", "_head", "_read", "_txn")

    def __init__(self, environment: Environment, handle: Callable[[OnlineView], Handle]) -> None:
        self._environment = environment
        self._handle = handle

    def __enter__(self) -> LmdbReader:
        environment = self._environment
        self._read: Handle | None = None
        if environment.forked:
            environment.check()
        try:
            self._txn = environment.env.begin()
        except lmdb.Error:
            with errors(environment.folder):  # readers that were killed have left their places taken
                environment.env.reader_check()
                self._txn = environment.env.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        self._txn.abort()
        if raised is not None and isinstance(raised, lmdb.Error):
            with errors(self._environment.folder):
                raise raised

    def state(self, view: OnlineView) -> ViewState | None:
        head = records.head_of(self._environment, self._txn, self._handle(view).id)
        return head.state(view) if head is not None else None

    def mark(self, view: OnlineView) -> Mark | None:
        head = self._head_of(self._handle(view))
        return records.mark_of(head) if head is not None else None

    def values(self, view: OnlineView, keys: Sequence[EntityKey]) -> list[tuple[Any, ...] | None]:
        handle = self._handle(view)
        prefix, encode = self._prefix(handle), handle.encode
        get, values, unpack = self._txn.get, self._environment.values, handle.packed.unpack
        found: list[tuple[Any, ...] | None] = []
        for key in keys:
            packed = get(prefix + encode(key), None, values)
            found.append(None if packed is None else unpack(packed))
        return found

    def columns(self, view: OnlineView, keys: Sequence[EntityKey]) -> list[pa.Array[Any]]:
        handle = self._handle(view)
        prefix, encode = self._prefix(handle), handle.encode
        get, values = self._txn.get, self._environment.values
        return handle.packed.columns([get(prefix + encode(key), None, values) for key in keys])

    def live(self, view: OnlineView, keys: Sequence[EntityKey], at: Sequence[int]) -> list[tuple[Any, ...] | None]:
        handle = self._handle(view)
        prefix = self._prefix(handle)
        kv = Reads(self._txn, self._environment.live)
        encode, compute = handle.encode, handle.rules.live.compute
        return [compute(kv, prefix, encode(key), instant) for key, instant in zip(keys, at, strict=True)]

    def _head_of(self, handle: Handle) -> bytes | None:
        """The head of a view's state; read once for all that is asked of the view in a row."""
        if handle is not self._read:
            self._head: bytes | None = self._txn.get(handle.id, None, self._environment.heads)
            self._read = handle
        return self._head

    def _prefix(self, handle: Handle) -> bytes:
        head = self._head_of(handle)
        if head is None:
            raise self._missing(handle.view)
        return head[:PREFIX]

    def _missing(self, view: OnlineView) -> NotFound | StoreMismatch:
        held = records.heads(self._environment, self._txn)
        names = {records.view_of(self._environment, self._txn, each).name for each, _ in held}
        if view.name in names:
            return StoreMismatch(
                f"The online store holds view {view.name!r} under another definition or other types",
                where=str(self._environment.folder),
                hint="run `millpond feature refresh --full`",
            )
        return NotFound(
            f"The online store holds nothing of view {view.name!r}",
            where=str(self._environment.folder),
            hint="run `millpond feature refresh`",
        )
