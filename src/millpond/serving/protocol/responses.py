"""Inference responses as REST has them: JSON, and binary tensors after it.

Source: see `rest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from millpond.serving.ports import Answer, InferRequest, OutputWanted, ServedModel
from millpond.serving.protocol.outputs import column_of, output_tensors_of, response_parameters
from millpond.serving.protocol.raw import raw_bytes
from millpond.serving.protocol.signature import OutputSpec, Signature, signature_of

if TYPE_CHECKING:
    from millpond.serving.rows import Column

#: Selections of outputs that are remembered for a version.
_TEMPLATES = 256
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


#: The parameters of a response that has no more than the variant; there are three.
_VARIANTS: dict[str, bytes] = {}


class Template(NamedTuple):
    """A response all in JSON, without its values.

    Attributes:
        wanted: The outputs that it is for; who remembers it by their id keeps them alive by it.
        text: With a place for the id, the parameters, and for each output its rows and its data.
        specs: The outputs.
    """

    wanted: tuple[OutputWanted, ...]
    text: bytes
    specs: tuple[OutputSpec, ...]


def format_infer(request: InferRequest, answer: Answer) -> tuple[bytes, list[bytes]]:
    """The body that answers a request: JSON, and the binary data that follows it, one part an output that wants it.

    Where there are such parts, the length of the JSON belongs into the header Inference-Header-Content-Length. A NaN
    is null in JSON.
    """
    signature = signature_of(answer.served)
    wanted = request.outputs
    template = signature.templates.get(id(wanted)) or _template(wanted, answer.served, signature)
    if template is None or answer.explanation is not None:
        return _in_parts(request, answer)
    count = len(answer.ids)
    values: list[object] = [b"" if request.id is None else b',"id":' + orjson.dumps(request.id)]
    if request.as_of is None and answer.synced_at is None:
        values.append(_VARIANTS.get(answer.variant) or _variant(answer.variant))
    else:
        values.append(orjson.dumps(response_parameters(request, answer)))
    for spec in template.specs:
        column = answer.outputs[spec.source] if spec.source else column_of(spec, answer)
        values.append(count)
        values.append(orjson.dumps(column, None, _NUMPY) if type(column) is list else _json(column))
    return template.text % tuple(values), []


def _variant(name: str) -> bytes:
    found = _VARIANTS[name] = orjson.dumps({"variant": name})
    return found


def _template(wanted: tuple[OutputWanted, ...], served: ServedModel, signature: Signature) -> Template | None:
    """The template of a selection of outputs; None where one is in binary."""
    specs = signature.specs(False)
    if any(each.binary or each.name not in specs for each in wanted):
        return None
    outputs = ",".join(_output_text(specs[each.name]) for each in wanted)
    head = f'{{"model_name":{_quoted(served.model)},"model_version":"{served.version}"'
    text = f'{head}%b,"parameters":%b,"outputs":[{outputs}]}}'
    template = Template(wanted, text.encode(), tuple(specs[each.name] for each in wanted))
    if len(signature.templates) >= _TEMPLATES:
        signature.templates.clear()
    signature.templates[id(wanted)] = template
    return template


def _output_text(spec: OutputSpec) -> str:
    shape = f"[%d,{spec.width}]" if spec.width else "[%d]"
    return f'{{"name":{_quoted(spec.name)},"datatype":"{spec.datatype}","shape":{shape},"data":%b}}'


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode().replace("%", "%%")


def _in_parts(request: InferRequest, answer: Answer) -> tuple[bytes, list[bytes]]:
    served = answer.served
    document: dict[str, Any] = {"model_name": served.model, "model_version": str(served.version)}
    if request.id is not None:
        document["id"] = request.id
    document["parameters"] = response_parameters(request, answer)
    parts: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for tensor in output_tensors_of(request, answer):
        shown: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        parameters = dict(tensor.parameters)
        if tensor.binary:
            parts.append(raw_bytes(tensor))
            parameters["binary_data_size"] = len(parts[-1])
        else:
            shown["data"] = orjson.Fragment(_json(tensor.column))
        if parameters:
            shown["parameters"] = parameters
        outputs.append(shown)
    document["outputs"] = outputs
    return orjson.dumps(document), parts


def _json(column: Column) -> bytes:
    """The elements of a column in one array, as JSON has them; NaN becomes null."""
    values = np.ascontiguousarray(column).reshape(-1) if isinstance(column, np.ndarray) else column
    return orjson.dumps(values, None, _NUMPY)
