"""The Open Inference Protocol, version 2, apart from the wires that carry it, and a plain JSON face for people."""

from millpond.serving.protocol.arrow import format_request, format_response, parse_request
from millpond.serving.protocol.errors import error_body, error_sentence
from millpond.serving.protocol.metadata import (
    model_metadata,
    output_tensors,
    parse_index,
    repository_index,
    server_metadata,
)
from millpond.serving.protocol.outputs import output_tensors_of, response_parameters
from millpond.serving.protocol.raw import encode_raw, raw_bytes, read_raw
from millpond.serving.protocol.records import format_records, parse_records
from millpond.serving.protocol.requests import MAX_ROWS, request_of
from millpond.serving.protocol.responses import format_infer
from millpond.serving.protocol.rest import parse_infer
from millpond.serving.protocol.tensors import OutTensor, Tensor

__all__ = [
    "MAX_ROWS",
    "OutTensor",
    "Tensor",
    "encode_raw",
    "error_body",
    "error_sentence",
    "format_infer",
    "format_records",
    "format_request",
    "format_response",
    "model_metadata",
    "output_tensors",
    "output_tensors_of",
    "parse_index",
    "parse_infer",
    "parse_records",
    "parse_request",
    "raw_bytes",
    "read_raw",
    "repository_index",
    "request_of",
    "response_parameters",
    "server_metadata",
]
