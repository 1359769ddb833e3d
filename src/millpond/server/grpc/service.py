"""`inference.GRPCInferenceService`: the Open Inference Protocol, version 2, over gRPC; and gRPC's health service.

Source: https://github.com/kserve/open-inference-protocol, and its model repository extension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from millpond import __version__
from millpond.core.errors import NotFound, RequestError
from millpond.server.grpc import messages
from millpond.server.grpc.calls import Method, fail, reply
from millpond.server.grpc.infer import Responses, outputs_of, parameters_of, tensors_of
from millpond.server.grpc.sending import Stream
from millpond.serving.metadata import model_metadata, server_metadata
from millpond.serving.ports import Answer, Answering, InferRequest, Question, ServedModel
from millpond.serving.protocol import request_of

_PATH = "/inference.GRPCInferenceService/"
_HEALTH_PATH = b"/grpc.health.v1.Health/Check"
_HEALTH_NAMES = ("", "inference.GRPCInferenceService")
_SERVING, _NOT_SERVING = 1, 2


class InferenceService:
    """The methods of the service.

    Args:
        answering: What is asked.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
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
        return all(each.state in ("READY", "UNLOADED") for each in self._answering.index())

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
        name = _model_name(parse(messages.RepositoryModelLoadRequest, message))
        self._answering.load(name)
        reply(stream, messages.RepositoryModelLoadResponse(model_name=name, isLoaded=True).SerializeToString())

    def _repository_unload(self, stream: Stream, _user: str, message: bytes) -> None:
        name = _model_name(parse(messages.RepositoryModelUnloadRequest, message))
        self._answering.unload(name)
        reply(stream, messages.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True).SerializeToString())

    # Inference.

    def _model_infer(self, stream: Stream, user: str, message: bytes) -> None:
        asked = parse(messages.ModelInferRequest, message)
        tensors, parameters, outputs = tensors_of(asked), parameters_of(asked.parameters), outputs_of(asked)
        id = asked.id or None

        def read(served: ServedModel) -> InferRequest:
            return request_of(tensors, served, parameters, id, outputs, binary=True)

        def done(request: InferRequest | None, answer: Answer | Exception) -> None:
            if request is None or isinstance(answer, Exception):
                return fail(stream, answer)
            try:
                encoded = self._responses.encode(request, answer)
            except Exception as error:
                return fail(stream, error)
            return reply(stream, encoded)

        model, version = asked.model_name, asked.model_version or None
        self._answering.ask(Question(model, version, user, read, done, stream.deadline, stream.is_gone))


def parse(kind: Any, message: bytes) -> Any:
    """A message of a kind.

    Raises:
        RequestError: It is none.
    """
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise RequestError(
            f"the message is no {kind.DESCRIPTOR.name}", hint="use the messages of the Open Inference Protocol"
        ) from error


def _tensor(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": told["name"], "datatype": told["datatype"], "shape": told["shape"]}


def _model_name(asked: Any) -> str:
    # Clients of KServe's build of the service send the model's name as the first field.
    name: str = asked.model_name or asked.repository_name
    return name
