"""`inference.GRPCInferenceService`: the Open Inference Protocol, version 2, over gRPC; and gRPC's health service.

Source: https://github.com/kserve/open-inference-protocol, and its model repository extension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millpond import __version__
from millpond.core.errors import NotFound, RequestError
from millpond.server.grpc import messages
from millpond.server.grpc.calls import Method, reply
from millpond.server.grpc.infer import Inference, Metrics, Responses, parse
from millpond.server.grpc.sending import Stream
from millpond.serving.ports import Answering
from millpond.serving.protocol.metadata import model_metadata, server_metadata

_PATH = "/inference.GRPCInferenceService/"
_HEALTH_PATH = b"/grpc.health.v1.Health/Check"
_HEALTH_NAMES = ("", "inference.GRPCInferenceService")
_SERVING, _NOT_SERVING = 1, 2


class InferenceService:
    """The methods of the service.

    Args:
        answering: What is asked.
        metrics: Counts inferences.
        ending: Whether the process is ending, and so not ready.
    """

    def __init__(
        self, answering: Answering, metrics: Metrics | None = None, ending: Callable[[], bool] = lambda: False
    ) -> None:
        self._answering = answering
        self._metrics = metrics
        self._ending = ending
        self._responses = Responses()
        self._live = messages.ServerLiveResponse(live=True).SerializeToString()

    def methods(self) -> Mapping[bytes, Method]:
        """The methods by path; those about health need no identity."""
        return {
            **{f"{_PATH}{name}".encode(): Method(run) for name, run in self._named().items()},
            f"{_PATH}ServerLive".encode(): Method(self._server_live, open=True),
            f"{_PATH}ServerReady".encode(): Method(self._server_ready, open=True),
            _HEALTH_PATH: Method(self._health, open=True),
        }

    def _named(self) -> Mapping[str, Callable[[Stream, str, bytes], None]]:
        return {
            "ModelInfer": self._model_infer,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ServerMetadata": self._server_metadata,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
        }

    # Health.

    def _ready(self) -> bool:
        """Ready when every model that is deployed can answer; also when there is none yet."""
        deployed = self._answering.index()
        return not self._ending() and all(each.state in ("READY", "UNLOADED") for each in deployed)

    def _server_live(self, stream: Stream, _user: str, _message: bytes) -> None:
        reply(stream, self._live)

    def _server_ready(self, stream: Stream, _user: str, _message: bytes) -> None:
        reply(stream, messages.ServerReadyResponse(ready=self._ready()).SerializeToString())

    def _health(self, stream: Stream, _user: str, message: bytes) -> None:
        service = parse(messages.HealthCheckRequest, message).service
        if service not in _HEALTH_NAMES:
            raise NotFound(f"there is no service {service!r}", hint=f"ask for {_HEALTH_NAMES[1]!r}")
        status = _SERVING if self._ready() else _NOT_SERVING
        reply(stream, messages.HealthCheckResponse(status=status).SerializeToString())

    # What there is.

    def _server_metadata(self, stream: Stream, _user: str, _message: bytes) -> None:
        reply(stream, messages.ServerMetadataResponse(**server_metadata(__version__)).SerializeToString())

    def _model_ready(self, stream: Stream, _user: str, message: bytes) -> None:
        asked = parse(messages.ModelReadyRequest, message)
        state = self._answering.state(asked.name, asked.version or None).state
        reply(stream, messages.ModelReadyResponse(ready=state == "READY").SerializeToString())

    def _model_metadata(self, stream: Stream, _user: str, message: bytes) -> None:
        asked = parse(messages.ModelMetadataRequest, message)
        told = model_metadata(self._answering.served(asked.name, asked.version or None))
        answer = messages.ModelMetadataResponse(
            name=told["name"],
            versions=told["versions"],
            platform=told["platform"],
            inputs=[_tensor(each) for each in told["inputs"]],
            outputs=[_tensor(each) for each in told["outputs"]],
        )
        reply(stream, answer.SerializeToString())

    def _repository_index(self, stream: Stream, _user: str, message: bytes) -> None:
        asked = parse(messages.RepositoryIndexRequest, message)
        models = [
            {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
            for each in self._answering.index()
            if each.state == "READY" or not asked.ready
        ]
        reply(stream, messages.RepositoryIndexResponse(models=models).SerializeToString())

    def _repository_load(self, stream: Stream, _user: str, message: bytes) -> None:
        asked = parse(messages.RepositoryModelLoadRequest, message)
        name = _model_name(asked)
        if asked.parameters:
            what = "a model is loaded as it was registered; the request gives parameters"
            raise RequestError(what, where=f"model {name!r}", hint="register and deploy a version of its own")
        self._answering.load(name)
        reply(stream, messages.RepositoryModelLoadResponse(model_name=name, isLoaded=True).SerializeToString())

    def _repository_unload(self, stream: Stream, _user: str, message: bytes) -> None:
        name = _model_name(parse(messages.RepositoryModelUnloadRequest, message))
        self._answering.unload(name)
        reply(stream, messages.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True).SerializeToString())

    # Inference.

    def _model_infer(self, stream: Stream, user: str, message: bytes) -> None:
        Inference(stream, self._responses, self._metrics).ask(self._answering, user, message)


def _tensor(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": told["name"], "datatype": told["datatype"], "shape": told["shape"]}


def _model_name(asked: Any) -> str:
    # Clients of KServe's build of the service send the model's name as the first field.
    name: str = asked.model_name or asked.repository_name
    return name
