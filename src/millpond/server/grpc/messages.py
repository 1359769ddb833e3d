"""Messages of the Open Inference Protocol's gRPC service, and of gRPC's health service.

Their descriptors are made here, in a pool of their own: a process that also has another project's build of the same
messages (a client, another server) would else be refused by protobuf.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; the model
repository extension; https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_Fields = Sequence[str]

#: By message, its fields in order: "[repeated|map|oneof] type name = number". A name within another message is written
#: with a dot; a map's key is a string; fields marked oneof exclude one another.
_INFERENCE: Mapping[str, _Fields] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live = 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready = 1",),
    "ModelReadyRequest": ("string name = 1", "string version = 2"),
    "ModelReadyResponse": ("bool ready = 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name = 1", "string version = 2", "repeated string extensions = 3"),
    "ModelMetadataRequest": ("string name = 1", "string version = 2"),
    "ModelMetadataResponse": (
        "string name = 1",
        "repeated string versions = 2",
        "string platform = 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    ),
    "ModelMetadataResponse.TensorMetadata": ("string name = 1", "string datatype = 2", "repeated int64 shape = 3"),
    "ModelInferRequest": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        "map InferParameter parameters = 4",
        "repeated ModelInferRequest.InferInputTensor inputs = 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6",
        "repeated bytes raw_input_contents = 7",
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        "map InferParameter parameters = 4",
        "InferTensorContents contents = 5",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name = 1", "map InferParameter parameters = 2"),
    "ModelInferResponse": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        "map InferParameter parameters = 4",
        "repeated ModelInferResponse.InferOutputTensor outputs = 5",
        "repeated bytes raw_output_contents = 6",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        "map InferParameter parameters = 4",
        "InferTensorContents contents = 5",
    ),
    "InferParameter": (
        "oneof bool bool_param = 1",
        "oneof int64 int64_param = 2",
        "oneof string string_param = 3",
        "oneof double double_param = 4",
        "oneof uint64 uint64_param = 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1",
        "repeated int32 int_contents = 2",
        "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4",
        "repeated uint64 uint64_contents = 5",
        "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7",
        "repeated bytes bytes_contents = 8",
    ),
    "ModelRepositoryParameter": (
        "oneof bool bool_param = 1",
        "oneof int64 int64_param = 2",
        "oneof string string_param = 3",
        "oneof bytes bytes_param = 4",
    ),
    "RepositoryIndexRequest": ("string repository_name = 1", "bool ready = 2"),
    "RepositoryIndexResponse": ("repeated RepositoryIndexResponse.ModelIndex models = 1",),
    "RepositoryIndexResponse.ModelIndex": (
        "string name = 1",
        "string version = 2",
        "string state = 3",
        "string reason = 4",
    ),
    "RepositoryModelLoadRequest": (
        "string repository_name = 1",
        "string model_name = 2",
        "map ModelRepositoryParameter parameters = 3",
    ),
    # Some servers answer with these fields, which clients of the others pass over.
    "RepositoryModelLoadResponse": ("string model_name = 1", "bool isLoaded = 2"),
    "RepositoryModelUnloadRequest": (
        "string repository_name = 1",
        "string model_name = 2",
        "map ModelRepositoryParameter parameters = 3",
    ),
    "RepositoryModelUnloadResponse": ("string model_name = 1", "bool isUnloaded = 2"),
}
_HEALTH: Mapping[str, _Fields] = {
    "HealthCheckRequest": ("string service = 1",),
    "HealthCheckResponse": ("HealthCheckResponse.ServingStatus status = 1",),
}
_SERVING_STATUS = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

_POOL = DescriptorPool()


def _file(name: str, package: str, messages: Mapping[str, _Fields]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for path, fields in messages.items():
        outer, _, last = path.rpartition(".")
        message = (made[outer].nested_type if outer else file.message_type).add(name=last)
        made[path] = message
        for field in fields:
            _add_field(message, f".{package}.{path}", package, field.split())
    if package == "grpc.health.v1":
        status = EnumDescriptorProto(name="ServingStatus")
        for number, value in enumerate(_SERVING_STATUS):
            status.value.add(name=value, number=number)
        made["HealthCheckResponse"].enum_type.append(status)
    return file


def _add_field(message: DescriptorProto, path: str, package: str, words: list[str]) -> None:
    kind, name, _, number = words[-4:]
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    label = words[0] if len(words) > 4 else ""
    if label in ("repeated", "map"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    if label == "map":
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, path, package, ["string", "key", "=", "1"])
        _add_field(entry, path, package, [kind, "value", "=", "2"])
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f"{path}.{entry.name}"
        return
    if label == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind[0].islower():
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type_name = f".{package}.{kind}"
        is_enum = kind.endswith("ServingStatus")
        field.type = FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE


def _classes(name: str, package: str, messages: Mapping[str, _Fields]) -> dict[str, Any]:
    _POOL.AddSerializedFile(_file(name, package, messages).SerializeToString())
    return {
        each: GetMessageClass(_POOL.FindMessageTypeByName(f"{package}.{each}")) for each in messages if "." not in each
    }


_inference = _classes("millpond/inference.proto", "inference", _INFERENCE)
_health = _classes("millpond/health.proto", "grpc.health.v1", _HEALTH)

ServerLiveResponse: Any = _inference["ServerLiveResponse"]
ServerReadyResponse: Any = _inference["ServerReadyResponse"]
ModelReadyRequest: Any = _inference["ModelReadyRequest"]
ModelReadyResponse: Any = _inference["ModelReadyResponse"]
ServerMetadataResponse: Any = _inference["ServerMetadataResponse"]
ModelMetadataRequest: Any = _inference["ModelMetadataRequest"]
ModelMetadataResponse: Any = _inference["ModelMetadataResponse"]
ModelInferRequest: Any = _inference["ModelInferRequest"]
ModelInferResponse: Any = _inference["ModelInferResponse"]
RepositoryIndexRequest: Any = _inference["RepositoryIndexRequest"]
RepositoryIndexResponse: Any = _inference["RepositoryIndexResponse"]
RepositoryModelLoadRequest: Any = _inference["RepositoryModelLoadRequest"]
RepositoryModelLoadResponse: Any = _inference["RepositoryModelLoadResponse"]
RepositoryModelUnloadRequest: Any = _inference["RepositoryModelUnloadRequest"]
RepositoryModelUnloadResponse: Any = _inference["RepositoryModelUnloadResponse"]
HealthCheckRequest: Any = _health["HealthCheckRequest"]
HealthCheckResponse: Any = _health["HealthCheckResponse"]

#: Every message of the inference service, by name.
MESSAGES: Mapping[str, Any] = _inference
