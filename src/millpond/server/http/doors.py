"""Who a request comes from: named by a trusted front, or known by an access token."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import unquote

from millpond.core.errors import NotAuthenticated, Overloaded
from millpond.server.credentials import OPEN_ROUTES, USER_HEADER, presented_token

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from millpond.access.ports import Authenticator
    from millpond.server.http.exchange import Exchange

#: Seconds after which a token that was revoked is refused at the latest.
TRUST_SECONDS = 2.0

#: Seconds after which a token that is in use is looked up again, beside the requests.
REFRESH_SECONDS = 1.0

#: Tokens that are remembered, good and bad ones.
REMEMBERED = 4096

#: Lookups that may wait for a thread.
WAITING_LOOKUPS = 256

_LONGEST_HEADER = 1024
_USER = USER_HEADER.encode()
_OPEN = frozenset(path.encode() for path in OPEN_ROUTES)
_HINT = "send the header `Authorization: Bearer mp_...`; the project's token lies in .millpond/token"
_log = logging.getLogger("millpond.serving")


#: Given the user, or why there is none; "" is nobody.
Told: TypeAlias = Callable[[str | Exception], None]


class Door(Protocol):
    """Tells who a request comes from.

    Attributes:
        trusted: Whether only the platform itself comes in here.
    """

    trusted: bool

    def enter(self, exchange: Exchange) -> None:
        """Set `exchange.user`; or leave it None, and call `admitted` or `refused` of its connection later.

        Raises:
            NotAuthenticated: The request may not come in.
        """
        ...


class TrustedDoor:
    """For a socket that only the platform's user can open: who asks is in the header `x-millpond-user`, if at all."""

    trusted = True

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}

    def enter(self, exchange: Exchange) -> None:
        """See `Door`."""
        said = exchange.headers.get(_USER)
        if said is None:
            return
        name = self._names.get(said)
        if name is None:
            if len(self._names) >= REMEMBERED:
                self._names.clear()
            name = self._names[said] = unquote(said.decode("latin-1"), errors="replace").strip()
        exchange.user = name


class _Known:
    """What a token was found to be: whose, or nobody's ("")."""

    __slots__ = ("asked_at", "refreshing", "user")

    def __init__(self, user: str, asked_at: float) -> None:
        self.user = user
        self.asked_at = asked_at
        self.refreshing = False


class TokenCache:
    """Whose tokens are, for wires that must not wait.

    A token is looked up in a thread, and remembered for `TRUST_SECONDS` from the moment the lookup began; one that is
    in use is looked up again before that ends, so that no request waits for it. Tokens come as Authorization headers.

    Args:
        access: Knows tokens.
        threads: Lookups are made there.
        loop: The event loop that requests come by, in whose thread this is used.
    """

    def __init__(self, access: Authenticator, threads: Executor, loop: asyncio.AbstractEventLoop) -> None:
        self._access = access
        self._threads = threads
        self._loop = loop
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asked: dict[bytes, list[Told]] = {}

    def known(self, header: bytes, at: float) -> str | None:
        """Whose token it is, "" for nobody's; None where it must be looked up. `at` is `time.monotonic()`."""
        if len(header) > _LONGEST_HEADER:
            return ""
        known = self._known.get(header)
        if known is None:
            return None
        age = at - known.asked_at
        if age >= TRUST_SECONDS:
            return None
        if age > REFRESH_SECONDS and not known.refreshing and len(self._asked) < WAITING_LOOKUPS:
            known.refreshing = True
            self._asked.setdefault(header, [])
            self._threads.submit(self._ask_and_tell, header, time.monotonic())
        return known.user

    def look_up(self, header: bytes, told: Told) -> None:
        """Find out whose token it is, and call `told` with that, "" for nobody's, or with why it cannot be known.

        Raises:
            Overloaded: Too many are being looked up.
        """
        waiting = self._asked.get(header)
        if waiting is not None:
            waiting.append(told)
            return
        if len(self._asked) >= WAITING_LOOKUPS:
            raise Overloaded("too many tokens are being looked up", where="Authorization", hint="ask again in a moment")
        self._asked[header] = [told]
        self._threads.submit(self._ask_and_tell, header, time.monotonic())

    def identify(self, token: str, told: Told) -> None:
        """Call `told`, at once or later, with who holds a token, or with an error."""
        header = b"Bearer " + token.encode("utf-8", "replace")

        def tell(user: str | Exception) -> None:
            told(user or invalid_token())

        user = self.known(header, time.monotonic())
        if user is not None:
            tell(user)
            return
        try:
            self.look_up(header, tell)
        except Overloaded as error:
            told(error)

    def _ask_and_tell(self, header: bytes, began: float) -> None:
        found = self._ask(header)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._found, header, began, found)

    def _ask(self, header: bytes) -> str | Exception:
        try:
            token = presented_token(header.decode("latin-1"))
            identity = self._access.authenticate_token(token) if token else None
        except Exception as error:
            return error
        return identity.name if identity is not None else ""

    def _found(self, header: bytes, began: float, user: str | Exception) -> None:
        if isinstance(user, Exception):
            _log.warning("a token could not be looked up: %r", user)
            self._known.pop(header, None)
        else:
            self._known[header] = _Known(user, began)
            self._known.move_to_end(header)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        for told in self._asked.pop(header):
            told(user)


class TokenDoor:
    """For a port that anybody can reach: an access token says who asks."""

    trusted = False

    def __init__(self, tokens: TokenCache) -> None:
        self._tokens = tokens

    def enter(self, exchange: Exchange) -> None:
        """See `Door`."""
        header = exchange.headers.get(b"authorization")
        if header is None:
            if _is_open(exchange):
                return
            raise NotAuthenticated("this needs an identity, and the request carries none", where="headers", hint=_HINT)
        user = self._tokens.known(header, exchange.started)
        if user is None:
            self._tokens.look_up(header, lambda found: self._told(exchange, found))
        elif not user and not _is_open(exchange):
            raise invalid_token()
        exchange.user = user

    @staticmethod
    def _told(exchange: Exchange, user: str | Exception) -> None:
        exchange.user = user if isinstance(user, str) else ""
        if isinstance(user, Exception):
            exchange.connection.refused(exchange, user)
        elif not user and not _is_open(exchange):
            exchange.connection.refused(exchange, invalid_token())
        else:
            exchange.connection.admitted(exchange)


def invalid_token() -> NotAuthenticated:
    """The error that a token is nobody's."""
    return NotAuthenticated(
        "the access token is not valid: it is unknown, or was revoked",
        where="Authorization",
        hint="the project's token lies in .millpond/token; make another with `millpond token create NAME`",
    )


def _is_open(exchange: Exchange) -> bool:
    return exchange.target.partition(b"?")[0] in _OPEN
