"""One inference over HTTP: from a whole request to its answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from millpond.core.errors import DeadlineExceeded, NotAuthenticated, NotFound, RequestError
from millpond.server.credentials import USER_HEADER
from millpond.server.http import wire
from millpond.server.http.errors import status_of
from millpond.serving.ports import Answer, InferRequest, Question, ServedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millpond.server.http.exchange import Exchange
    from millpond.server.inference_metrics import InferenceMetrics
    from millpond.serving.ports import Answering

_JSON_LENGTH = b"inference-header-content-length"
_TIMEOUT = b"x-request-timeout"


class Asked(NamedTuple):
    """What a request path asks.

    Attributes:
        model: The model's name.
        version: A version's number, as text, or None.
        read: Reads a body: `wire.parse_infer`, or the like for another form.
        write: Makes an answer's JSON and binary buffers.
    """

    model: str
    version: str | None
    read: Callable[..., InferRequest]
    write: Callable[[InferRequest, Answer], tuple[bytes, Sequence[bytes]]]


class Inference:
    """A request on its way through an `Answering`, counted when it is answered."""

    __slots__ = ("_asked", "_deadline", "_exchange", "_finished", "_json_length", "_metrics", "_served", "_timer")

    def __init__(self, exchange: Exchange, asked: Asked, metrics: InferenceMetrics) -> None:
        self._exchange = exchange
        self._asked = asked
        self._metrics = metrics
        self._served: ServedModel | None = None
        self._json_length: int | None = None
        self._finished = False
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, answering: Answering, most_seconds: float) -> None:
        """Ask; the answer goes to the exchange, at once or later.

        Args:
            answering: Answers.
            most_seconds: Seconds after which the caller is told that there is no answer.
        """
        exchange, asked = self._exchange, self._asked
        self._metrics.waiting += 1
        try:
            user = caller(exchange)
            headers = exchange.headers
            if _JSON_LENGTH in headers:
                self._json_length = _length(headers[_JSON_LENGTH], len(exchange.body))
            seconds = most_seconds
            stated = _stated(headers[_TIMEOUT]) if _TIMEOUT in headers else None
            if stated is None and b'"timeout"' in exchange.body:
                stated = wire.timeout_of(exchange.body, self._json_length)
            deadline = exchange.started + most_seconds
            if stated is not None and stated < most_seconds:
                seconds = stated
                deadline = exchange.started + stated
                self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - time.monotonic()), self.expire)
            self._deadline = seconds
            exchange.expires = deadline
            exchange.expire = self.expire
            question = Question(asked.model, asked.version, user, self.read, self.done, deadline, exchange.gone)
        except Exception as error:
            self._fail(error)
            return
        try:
            answering.ask(question)
        except Exception as error:  # it promised not to; the caller is answered all the same
            self.done(None, error)

    def read(self, served: ServedModel) -> InferRequest:
        """Read the request as one for a version."""
        self._served = served
        return self._asked.read(self._exchange.body, served, json_length=self._json_length)

    def done(self, request: InferRequest | None, answer: Answer | Exception) -> None:
        """Answer the caller; called once, and ignored where the caller was told before that it took too long."""
        if self._finished:
            return
        if isinstance(answer, Exception):
            self._fail(answer)
            return
        exchange = self._exchange
        try:
            assert request is not None
            if not exchange.gone():
                exchange.answer_parts(*self._asked.write(request, answer))
        except Exception as error:
            self._fail(error)
            return
        self._finish()
        served = answer.served
        seconds = time.monotonic() - exchange.started
        self._metrics.observe(served.model, str(served.version), answer.variant, 200, len(answer.ids), seconds)

    def expire(self) -> None:
        """Tell the caller that there is no answer in time."""
        if self._finished:
            return
        model = self._asked.model
        self._fail(
            DeadlineExceeded(
                f"model {model!r} did not answer within {self._deadline:g} seconds",
                where=f"model {model!r}",
                hint="ask again, send fewer rows at once, or allow more time",
            )
        )

    def _fail(self, error: Exception) -> None:
        self._finish()
        exchange, asked, served = self._exchange, self._asked, self._served
        exchange.fail(error)
        model, version = asked.model, asked.version or ""
        if served is not None:
            version = str(served.version)
        elif isinstance(error, NotFound):
            model = version = ""
        seconds = time.monotonic() - exchange.started
        self._metrics.observe(model, version, "", status_of(error), 0, seconds)

    def _finish(self) -> None:
        self._finished = True
        self._exchange.expire = (
            None  # it leads back here: without it, a request leaves nothing for the garbage collector
        )
        self._metrics.waiting -= 1
        if self._timer is not None:
            self._timer.cancel()


def caller(exchange: Exchange) -> str:
    """Who asks.

    Raises:
        NotAuthenticated: The request does not say.
    """
    if not exchange.user:
        hint = "ask through the platform's own port"
        raise NotAuthenticated("the request says not who asks", where=f"header {USER_HEADER}", hint=hint)
    return exchange.user


def _length(value: bytes, most: int) -> int:
    text = value.strip()
    if not text.isdigit() or len(text) > 18 or int(text) > most:
        raise RequestError(
            f"Inference-Header-Content-Length is {text.decode('latin-1')!r}, and the body has {most} bytes",
            where="headers",
            hint="it says how many bytes of the body are JSON; tritonclient leaves it in the headers that it is given: "
            "pass a new dictionary with each call",
        )
    return int(text)


def _stated(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise RequestError(
            f"x-request-timeout is {value.decode('latin-1')!r}, expected seconds", where="headers", hint="such as 0.5"
        )
    return seconds
