"""The routes of a serving worker: the Open Inference Protocol with its repository extension, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import orjson

from millpond import __version__
from millpond.core.errors import NotFound, RequestError
from millpond.server.http import wire
from millpond.server.http.errors import Refusal, to_json
from millpond.server.http.inference import Asked, Inference, caller
from millpond.server.inference_metrics import CONTENT_TYPE, InferenceMetrics

if TYPE_CHECKING:
    from millpond.server.http.exchange import Exchange
    from millpond.serving.ports import Answering

#: Paths of inference that are remembered.
_REMEMBERED = 1024

Answer = Callable[["Exchange"], None]
_NAMES = "/v2, /v2/models/{model}, POST /v2/models/{model}/infer"


class Routes:
    """Answers requests of the protocol from an `Answering`.

    Args:
        answering: Answers for all versions of this process.
        metrics: Counts; shared with other wires of the process.
        most_seconds: Seconds after which a request is told that there is no answer.
        more_metrics: Further lines for /metrics.
        traffic: What /internal/traffic tells the platform.
        ending: Whether the process is ending, and so not ready.
    """

    def __init__(
        self,
        answering: Answering,
        metrics: InferenceMetrics,
        *,
        most_seconds: float = 60.0,
        more_metrics: Callable[[], str] | None = None,
        traffic: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answering = answering
        self._metrics = metrics
        self._most_seconds = most_seconds
        self._more_metrics = more_metrics
        self._traffic = traffic
        self._ending = ending
        self._inferences: dict[bytes, Asked] = {}

    def handle(self, exchange: Exchange) -> None:
        """Answer a request; what it raises is the answer."""
        asked = self._inferences.get(exchange.target)
        if asked is not None and exchange.method == b"POST":
            Inference(exchange, asked, self._metrics).ask(self._answering, self._most_seconds)
            return
        path = _path(exchange.target)
        methods = self._find(path, exchange)
        if methods is None:
            raise _no_such_route(exchange, 404, f"see the Open Inference Protocol: {_NAMES}")
        answer = methods.get(b"GET" if exchange.method == b"HEAD" else exchange.method)
        if answer is None:
            allowed = b", ".join((*methods, *((b"HEAD",) if b"GET" in methods else ())))
            raise _no_such_route(exchange, 405, f"allowed: {allowed.decode()}", b"allow: %b\r\n" % allowed)
        answer(exchange)

    def _find(self, path: list[str], exchange: Exchange) -> dict[bytes, Answer] | None:
        match path:
            case ["v2"]:
                return {b"GET": self._server}
            case ["v2", "health", "live"]:
                return {b"GET": self._live}
            case ["v2", "health", "ready"]:
                return {b"GET": self._ready}
            case ["v2", "models", model, *rest] if model:
                return self._find_model(model, rest)
            case ["v2", "repository", "index"]:
                return {b"POST": self._index}
            case ["v2", "repository", "models", model, "load"] if model:
                return {b"POST": lambda each: self._load(each, model)}
            case ["v2", "repository", "models", model, "unload"] if model:
                return {b"POST": lambda each: self._unload(each, model)}
            case ["metrics"]:
                return {b"GET": self._show_metrics}
            case ["internal", "traffic"] if exchange.connection.door.trusted and self._traffic is not None:
                return {b"GET": self._show_traffic}
        return None

    def _find_model(self, model: str, rest: list[str]) -> dict[bytes, Answer] | None:
        version = None
        match rest:
            case ["versions", number, *rest] if number:
                version = number
        match rest:
            case []:
                return {b"GET": lambda each: self._model(each, model, version)}
            case ["ready"]:
                return {b"GET": lambda each: self._model_ready(each, model, version)}
            case ["infer"]:
                return {
                    b"POST": lambda each: self._infer(each, Asked(model, version, wire.parse_infer, wire.format_infer))
                }
            case ["predict"]:
                records = Asked(model, version, wire.parse_records, wire.format_records)
                return {b"POST": lambda each: self._infer(each, records)}
        return None

    def _infer(self, exchange: Exchange, asked: Asked) -> None:
        if len(self._inferences) >= _REMEMBERED:
            self._inferences.clear()
        self._inferences[exchange.target] = asked
        Inference(exchange, asked, self._metrics).ask(self._answering, self._most_seconds)

    def _server(self, exchange: Exchange) -> None:
        exchange.answer(to_json(wire.server_metadata(__version__)))

    def _live(self, exchange: Exchange) -> None:
        exchange.answer(b'{"live":true}')

    def _ready(self, exchange: Exchange) -> None:
        """Ready when every model that is deployed can answer; also when there is none yet."""
        late = sorted({each.name for each in self._answering.index() if each.state not in ("READY", "UNLOADED")})
        ready = not late and not self._ending()
        body = {"ready": ready, **({"waiting": late} if late else {})}
        exchange.answer(to_json(body), status=200 if ready else 503)

    def _model(self, exchange: Exchange, model: str, version: str | None) -> None:
        exchange.answer(to_json(wire.model_metadata(self._answering.served(model, version))))

    def _model_ready(self, exchange: Exchange, model: str, version: str | None) -> None:
        state = self._answering.state(model, version)
        if state.state == "READY":
            exchange.answer(to_json({"name": model, "ready": True}))
        else:
            body = {"name": model, "ready": False, "error": state.reason or state.state.lower()}
            exchange.answer(to_json(body), status=503)

    def _index(self, exchange: Exchange) -> None:
        caller(exchange)
        only_ready = wire.parse_index(exchange.body)
        exchange.answer(to_json(wire.repository_index(self._answering.index(), ready=only_ready)))

    def _load(self, exchange: Exchange, model: str) -> None:
        caller(exchange)
        if _document(exchange).get("parameters"):
            what = "a model is loaded as it was registered; the request gives parameters"
            raise RequestError(what, where=f"model {model!r}", hint="register and deploy a version of its own")
        self._answering.load(model)
        exchange.answer(b"{}")

    def _unload(self, exchange: Exchange, model: str) -> None:
        caller(exchange)
        _document(exchange)
        self._answering.unload(model)
        exchange.answer(b"{}")

    def _show_metrics(self, exchange: Exchange) -> None:
        text = self._metrics.render() + (self._more_metrics() if self._more_metrics is not None else "")
        exchange.answer(text.encode(), CONTENT_TYPE.encode())

    def _show_traffic(self, exchange: Exchange) -> None:
        assert self._traffic is not None
        exchange.answer(to_json(self._traffic()))


def _path(target: bytes) -> list[str]:
    """The segments of a request target, decoded one by one."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:  # the absolute form, as proxies send it
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    segments = path[1:].split(b"/")
    return [unquote_to_bytes(each).decode("utf-8", "replace") for each in segments]


def _no_such_route(exchange: Exchange, status: int, hint: str, headers: bytes = b"") -> Refusal:
    path = exchange.target.partition(b"?")[0].decode("latin-1")[:200]
    what = f"{exchange.method.decode()} {path} is not answered here"
    return Refusal(status, NotFound(what, hint=hint) if status == 404 else RequestError(what, hint=hint), headers)


def _document(exchange: Exchange) -> dict[str, Any]:
    """The request's JSON object; empty where there is no body.

    Raises:
        RequestError: It is none.
    """
    if not exchange.body.strip():
        return {}
    try:
        found = orjson.loads(exchange.body)
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}", where="body", hint="send a JSON object") from error
    if not isinstance(found, dict):
        raise RequestError("the body is no JSON object", where="body", hint="send a JSON object, or nothing")
    return found
