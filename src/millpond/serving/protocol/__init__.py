"""The Open Inference Protocol, version 2, apart from the wires that carry it, and a plain JSON face for people."""

from millpond.serving.protocol.arrow import format_request, format_response, parse_request
from millpond.serving.protocol.outputs import output_tensors_of, response_parameters
from millpond.serving.protocol.raw import raw_bytes, read_raw
from millpond.serving.protocol.requests import MAX_ROWS, request_of
from millpond.serving.protocol.rest import format_infer, parse_infer
from millpond.serving.protocol.tensors import OutTensor, Tensor

__all__ = [
    "MAX_ROWS",
    "OutTensor",
    "Tensor",
    "format_infer",
    "format_request",
    "format_response",
    "output_tensors_of",
    "parse_infer",
    "parse_request",
    "raw_bytes",
    "read_raw",
    "request_of",
    "response_parameters",
]
