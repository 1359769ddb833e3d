"""Talking to Redis or Valkey: one project's keys, operations committed whole, and errors in the user's words."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis  # noqa: TID253 - this module is imported where a store is opened
from redis.backoff import NoBackoff  # noqa: TID253
from redis.retry import Retry  # noqa: TID253

from millpond.core.errors import Conflict, SettingsError, Unavailable

_log = logging.getLogger("millpond.online")

_CONNECT_SECONDS, _ANSWER_SECONDS = 1.0, 3.0
#: Stands for the operation's number in what is written along with it.
SEQUENCE = "@sequence@"

# KEYS  epoch, sequence, position, log, payloads, lease
# ARGV  epoch, least sequence, holder of the lease or "", kind or "", events, id, meta, payload or "",
#       then commands, each as the number of its words and its words
_COMMIT = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return redis.error_reply('MILLPOND epoch') end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[2]) then return redis.error_reply('MILLPOND behind') end
if ARGV[3] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[3] then return redis.error_reply('MILLPOND lease') end
local sequence, position = '0', '0'
if ARGV[4] ~= '' then
  sequence = string.format('%.0f', redis.call('INCR', KEYS[2]))
  position = string.format('%.0f', redis.call('INCRBY', KEYS[3], ARGV[5]))
  redis.call('XADD', KEYS[4], sequence .. '-0', 'kind', ARGV[4], 'last', position, 'id', ARGV[6], 'meta', ARGV[7],
             'at', redis.call('TIME')[1])
  if ARGV[8] ~= '' then redis.call('HSET', KEYS[5], sequence, ARGV[8]) end
end
local index = 9
while ARGV[index] do
  local command = {}
  for each = 1, tonumber(ARGV[index]) do
    command[each] = string.gsub(ARGV[index + each], '@sequence@', sequence)
  end
  redis.call(unpack(command))
  index = index + tonumber(ARGV[index]) + 1
end
return {sequence, position}
"""
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_REPLACE = "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end"


class Keys:
    """Names of a project's keys; all of them in one slot of a cluster."""

    def __init__(self, project: str) -> None:
        self.prefix = f"millpond:{{{project}}}:"
        self.epoch = self.prefix + "epoch"  # drawn when the original was made
        self.made_of = self.prefix + "made-of"  # epoch and sequence of the replica that last offered what it held
        self.sequence = self.prefix + "sequence"  # number of the last operation
        self.position = self.prefix + "position"  # position of the last event
        self.log = self.prefix + "log"  # stream of the operations, its ids their numbers
        self.payloads = self.prefix + "payloads"  # number of an operation -> what came with it
        self.trimmed = self.prefix + "trimmed"  # number up to which operations have left the log
        self.views = self.prefix + "views"  # fingerprint -> what is in place
        self.making = self.prefix + "making"  # token -> generation, view, table, position
        self.landed = self.prefix + "landed"  # table -> position
        self.purgeable = self.prefix + "purgeable"  # table -> what `landed` was before
        self.gone = self.prefix + "gone"  # table -> position up to which events have left the log
        self.forgotten = self.prefix + "forgotten"  # number of the operation -> entity and key

    @property
    def of_an_original(self) -> tuple[str, ...]:
        """What goes when another original is made; generations are deleted with the views that have them."""
        first = (self.log, self.payloads, self.trimmed, self.views, self.making, self.made_of)
        return (*first, self.landed, self.purgeable, self.gone, self.forgotten)

    def generation(self, id_: str) -> str:
        """The chunks of a generation, by number."""
        return f"{self.prefix}generation:{id_}"

    def lease(self, name: str) -> str:
        return f"{self.prefix}lease:{name}"


class Committed(NamedTuple):
    """An operation's number, and the position of the last event then."""

    sequence: int
    position: int


@dataclass(frozen=True)
class Operation:
    """What is appended to the log.

    Attributes:
        kind: events, land, making, unmade, state, forget or drop.
        meta: JSON of it.
        events: How many positions it takes.
        payload: Bytes kept beside the log.
        commands: What is written along with it, all or nothing.
    """

    kind: str
    meta: str = "{}"
    events: int = 0
    payload: bytes = b""
    commands: Sequence[Sequence[str | bytes]] = ()


class LostState(Exception):
    """Redis does not hold what it held: it is empty, or an older one, or another one."""


class Connection:
    """One project in Redis. Safe across threads; connects when it is first used, and again when need be.

    Raises:
        SettingsError: The URL is none of Redis.
    """

    def __init__(self, url: str, project: str) -> None:
        self.keys = Keys(project)
        self.url = url
        self.where = without_secrets(url)
        self.client = self._client()
        self._checked = False
        self._commit = self.client.register_script(_COMMIT)
        self._renew = self.client.register_script(_RENEW)
        self._release = self.client.register_script(_RELEASE)
        self._replace = self.client.register_script(_REPLACE)

    def _client(self, **options: Any) -> Any:
        try:
            return redis.Redis.from_url(
                self.url,
                protocol=2,
                decode_responses=False,
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
                **options,
            )
        except (ValueError, TypeError):  # their words may hold the password
            raise SettingsError(f"{self.where} is no URL of Redis", hint=URL_RULE) from None

    def single(self) -> Any:
        """A client of one connection, for one thread, that tells when the connection was lost."""
        with self.errors():
            return self._client(single_connection_client=True)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise errors of Redis as the user's."""
        try:
            yield
        except redis.RedisError as cause:
            raise self._told(cause) from cause

    def commit(self, epoch: str, least: int, operation: Operation | None, *, lease: tuple[str, str] = ("", ""),
               commands: Sequence[Sequence[str | bytes]] = ()) -> Committed:  # fmt: skip
        """Append an operation, and write what goes with it; all of it or nothing.

        Args:
            epoch: The original must be this one,
            least: and have this operation.
            operation: What to append; None appends nothing.
            lease: Name and holder of a lease that must be held still.
            commands: What to write as well.

        Raises:
            LostState: The original is another one, or lacks operation `least`.
            Conflict: The lease has run out.
            Unavailable: Redis does not answer; whether the operation was appended is not known.
        """
        keys = self.keys
        operation = operation or Operation("")
        words: list[str | bytes | int] = [epoch, least, lease[1], operation.kind, operation.events, uuid.uuid4().hex]
        words += [operation.meta, operation.payload]
        for command in (*operation.commands, *commands):
            words += [len(command), *command]
        names = [keys.epoch, keys.sequence, keys.position, keys.log, keys.payloads, keys.lease(lease[0])]
        try:
            sequence, position = self._commit(keys=names, args=words)
        except redis.ResponseError as cause:
            if "MILLPOND lease" in str(cause):
                raise Conflict(
                    "Another process has taken over, since this one was not heard of for too long", hint="do it again"
                ) from cause
            if "MILLPOND" in str(cause):
                raise LostState(str(cause)) from cause
            raise self._told(cause) from cause
        except redis.RedisError as cause:
            raise self._told(cause) from cause
        return Committed(int(sequence), int(position))

    def renew(self, name: str, holder: str, seconds: float) -> bool:
        """Whether the lease is held still; it is from now on for `seconds`."""
        with self.errors():
            return bool(self._renew(keys=[self.keys.lease(name)], args=[holder, int(seconds * 1000)]))

    def release(self, name: str, holder: str) -> None:
        with self.errors():
            self._release(keys=[self.keys.lease(name)], args=[holder])

    def replace(self, key: str, field_: str, value: bytes) -> None:
        """Write a field of a hash if it is there."""
        with self.errors():
            self._replace(keys=[key], args=[field_, value])

    def hash(self, key: str) -> Mapping[str, bytes]:
        with self.errors():
            return {name.decode(): value for name, value in self.client.hgetall(key).items()}

    def number(self, key: str, field_: str) -> int:
        """A number in a hash; 0 where there is none."""
        with self.errors():
            return int(self.client.hget(key, field_) or 0)

    def check_durability(self) -> None:
        """Warn, once, where Redis may lose what it acknowledged."""
        if self._checked:
            return
        with self.errors():
            try:
                found = {name: self.client.config_get(name).get(name, "") for name in _DURABLE}
            except redis.ResponseError:
                found = dict(_DURABLE)
                _log.info("%s does not tell its settings; see that it has %s", self.where, _DURABLE)
        self._checked = True
        for name, wanted in _DURABLE.items():
            if found[name] != wanted:
                _log.warning(
                    "%s has %s %s, and may lose events that were acknowledged; set %s %s",
                    self.where, name, found[name], name, wanted,
                )  # fmt: skip

    def close(self) -> None:
        self.client.close()

    def _told(self, cause: Exception) -> Unavailable:
        text = str(cause)
        if isinstance(cause, redis.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            return Unavailable(
                "Redis refuses the user or the password, or what they may do",
                where=self.where,
                hint="mend the user and password in the URL, or the user's permissions in Redis",
            )
        if isinstance(cause, redis.ResponseError) and text.startswith(("OOM", "MISCONF", "READONLY")):
            return Unavailable(
                f"Redis takes no writes: {text}",
                where=self.where,
                hint="give it memory or disk, and the URL of the primary; reads go on meanwhile",
            )
        return Unavailable(
            f"Redis does not answer: {text}",
            where=self.where,
            hint="reads go on from this server's replica; do it again when Redis is back",
        )


_DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
URL_RULE = "it is written redis://user:password@host:6379/0, rediss://... with TLS, or unix:///path"


def without_secrets(url: str) -> str:
    """A URL without user, password and options."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}" if parts.scheme else "the Redis URL"
    except ValueError:
        return "the Redis URL"
