"""LMDB environments: opened once a process, shared by count, and their errors in the user's words.

LMDB may not open the same files twice in one process, and an environment must not be used after a fork; the first is
arranged here, the second refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb  # noqa: TID253 - this module is imported where a store is opened

from millpond.core.errors import DataError, MillpondError, StoreMismatch, Unavailable

#: What is in the files; another number is another layout.
FORMAT = b"1"
#: Address space reserved for the map, not disk: the file is as large as what was written.
MAP_SIZE = 1 << 40

_LEAST_MAP = 1 << 30
_MAX_READERS = 1022
_NAMES = ("meta", "views", "heads", "tables", "values", "live", "places", "seen", "log")
_REFRESH = "run `millpond feature refresh --full`"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Environment:
    """One open environment and its maps; see `lmdb.LmdbStore` for what each holds."""

    folder: Path
    env: Any
    meta: Any
    views: Any
    heads: Any
    tables: Any
    values: Any
    live: Any
    places: Any
    seen: Any
    log: Any
    map_size: int
    users: int = field(default=1)
    forked: bool = field(default=False)

    @contextmanager
    def write(self) -> Iterator[Any]:
        """A transaction that writes: all of it is durable on exit, or none of it is done. One at a time."""
        self.check()
        with errors(self.folder):
            self.env.reader_check()
            with self.env.begin(write=True) as txn:
                yield txn

    @contextmanager
    def look(self) -> Iterator[Any]:
        """A transaction that reads one committed state."""
        self.check()
        with errors(self.folder), self.env.begin() as txn:
            yield txn

    def check(self) -> None:
        """Refuse use after a fork."""
        if self.forked:
            raise Unavailable(
                f"The online store in {self.folder} was opened before this process was forked",
                hint="start worker processes by spawn, or open the store after the fork only",
            )


_open: dict[str, Environment] = {}
_lock = threading.Lock()


def acquire(folder: Path, map_size: int) -> Environment:
    """The environment in a folder, opened or shared; `release` it once for each call.

    Raises:
        StoreMismatch: The files are of another format.
        Unavailable: They cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = os.path.realpath(folder)
    with _lock:
        found = _open.get(path)
        if found is not None:
            found.check()
            found.users += 1
            return found
        with errors(folder):
            environment = _open_environment(folder, path, map_size)
        _open[path] = environment
        return environment


def release(environment: Environment) -> None:
    """Give back what `acquire` gave; the last one closes the files."""
    with _lock:
        environment.users -= 1
        if environment.users == 0 and not environment.forked:
            _open.pop(os.path.realpath(environment.folder), None)
            environment.env.close()


def _open_environment(folder: Path, path: str, map_size: int) -> Environment:
    env = None
    while env is None:
        try:
            env = lmdb.open(path, map_size=map_size, max_dbs=16, max_readers=_MAX_READERS, readahead=False, mode=0o600)
        except lmdb.MemoryError:  # an address space with a limit
            if map_size <= _LEAST_MAP:
                raise
            map_size //= 4
    try:
        env.reader_check()
        with env.begin() as txn:
            names = {bytes(name) for name, _ in txn.cursor()}
        if names:
            _check_format(folder, env, names)
            maps = {name: env.open_db(name.encode()) for name in _NAMES}
        else:
            with env.begin(write=True) as txn:  # another process may have been first
                maps = {name: env.open_db(name.encode(), txn=txn) for name in _NAMES}
                txn.put(b"format", FORMAT, overwrite=False, db=maps["meta"])
        return Environment(folder=folder, env=env, map_size=map_size, **maps)  # type: ignore[arg-type]
    except BaseException:
        env.close()
        raise


def _check_format(folder: Path, env: Any, names: set[bytes]) -> None:
    found = None
    if b"meta" in names:
        meta = env.open_db(b"meta", create=False)
        with env.begin(db=meta) as txn:
            found = txn.get(b"format")
    if found != FORMAT:
        raise StoreMismatch(
            f"The online store has format {found.decode() if found else 'unknown'}; this version reads "
            f"{FORMAT.decode()}",
            where=str(folder),
            hint=f"move the folder away and {_REFRESH}",
        )


@contextmanager
def errors(folder: Path) -> Iterator[None]:
    """Raise LMDB's errors as the user's."""
    try:
        yield
    except MillpondError:
        raise
    except lmdb.Error as cause:
        raise _told(folder, cause) from cause


def _told(folder: Path, cause: Any) -> MillpondError:
    where = str(folder)
    if isinstance(cause, lmdb.MapFullError):
        return Unavailable(
            "The online store has reached its greatest size; nothing was written",
            where=where,
            hint="open it with a greater map_size, or drop views that nobody reads",
        )
    if cause.code in _NO_SPACE:
        return Unavailable(
            "There is no space left for the online store; nothing was written",
            where=where,
            hint="free space on the disk, then do it again",
        )
    if cause.code == errno.EIO:  # also what a disk says that took only a part, since it is full
        return Unavailable(
            "The disk did not take what the online store wrote; nothing was changed",
            where=where,
            hint="it is full or damaged: free space, then do it again",
        )
    if isinstance(cause, lmdb.ReadersFullError):
        return Unavailable(f"More than {_MAX_READERS} readers are in the online store at once", where=where)
    if isinstance(cause, lmdb.BadValsizeError):
        return DataError("A key is too long for the online store", where=where, hint="shorten the key's values")
    if isinstance(cause, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.IncompatibleError | lmdb.CorruptedError):
        return StoreMismatch(
            f"The files of the online store cannot be read: {cause}",
            where=where,
            hint=f"move the folder away and {_REFRESH}",
        )
    return Unavailable(f"The online store failed: {cause}", where=where, hint="look at the disk and its permissions")


def _after_fork() -> None:
    """Make environments of the parent unusable, and never close them: that would free the parent's readers."""
    global _lock  # noqa: PLW0603 - the parent's lock may be held by a thread that this process does not have
    _lock = threading.Lock()
    for environment in _open.values():
        environment.forked = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment.env))


os.register_at_fork(after_in_child=_after_fork)
