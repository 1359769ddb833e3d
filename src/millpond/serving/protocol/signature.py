"""What is worked out once for a version, so that its requests are read quickly."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from millpond.serving.ports import OUTPUT, OutputWanted, RequestColumn, ServedModel
from millpond.serving.protocol.datatypes import DATATYPE_OF

if TYPE_CHECKING:
    from millpond.serving.protocol.matrices import MatrixPlan
    from millpond.serving.protocol.quick import Plan, TensorPlan
    from millpond.serving.protocol.responses import Template

#: Names of outputs that are ours; a model's own output of such a name is announced as `output_<name>`.
PREDICTION_ID = "prediction_id"
AS_OF = "as_of"
CONTRIBUTIONS = "contributions"
CONTRIBUTIONS_BASE = "contributions_base"
_OURS = (PREDICTION_ID, AS_OF, CONTRIBUTIONS, CONTRIBUTIONS_BASE)


class OutputSpec(NamedTuple):
    """An output as it is announced.

    Attributes:
        name: Its name in requests and responses.
        datatype: Of the protocol.
        width: Values a row; 0 is one value.
        source: Name among `ServedModel.outputs`; empty for what is not from the runtime.
    """

    name: str
    datatype: str
    width: int = 0
    source: str = ""


class Signature:
    """A version's columns and outputs, as the reading of requests wants them. Not changed once made.

    Attributes:
        place: Names the model in errors.
        columns: Request columns by name.
        raws: Raw model inputs by name, in order.
        raw_names: Their names.
        width: Number of raw inputs.
        same: Whether request columns are the raw inputs, so that there is no feature to look up.
        numbers: Whether all raw inputs are float64 or int64, so that rows of them are a matrix.
        countable: Whether all are numbers or bool, so that a request may send them as one matrix.
        whole: Positions of the raw inputs that are int64.
        matrices: Whether they are numbers that may all be null, so that nothing else is to be checked.
        matrix: See `ServedModel.matrix`.
        heads: How requests of one matrix are read that came before, by their heads; see `matrices`.
        plans: The same for requests of one row in tensors of its own; see `quick`.
        rows: The same for such rows that come by any wire.
        templates: Responses without their values, by the id of the outputs they are for; see `responses`.
        outputs: What is announced, in order.
        plain: The outputs of a request that says nothing of them.
        plain_names: Their names.
        wanted: The outputs of a request that names none, by (explain, binary).
    """

    def __init__(self, served: ServedModel) -> None:
        self.place = f"model {served.model!r}"
        self.columns = {column.name: column for column in served.columns}
        self.same = {name: column.type for name, column in self.columns.items()} == dict(served.inputs)
        self.raws = {
            name: self.columns[name] if self.same else RequestColumn(name, kind, False, "input")
            for name, kind in served.inputs.items()
        }
        self.raw_names = tuple(self.raws)
        self.width = len(self.raws)
        kinds = set(served.inputs.values())
        self.numbers = bool(kinds) and kinds <= {"float64", "int64"}
        self.countable = bool(kinds) and kinds <= {"float64", "int64", "bool"}
        self.whole = [index for index, kind in enumerate(served.inputs.values()) if kind == "int64"]
        self.matrices = self.numbers and not any(column.required for column in self.raws.values())
        self.matrix = served.matrix
        self.heads: dict[bytes, MatrixPlan] = {}
        self.plans: dict[bytes, Plan] = {}
        self.rows: dict[tuple[Any, ...], TensorPlan] = {}
        self.templates: dict[int, Template] = {}
        self.outputs = output_specs(served)
        self.plain = tuple(OutputWanted(each.name) for each in self.outputs)
        self.plain_names = frozenset(each.name for each in self.plain)
        self.wanted: Mapping[tuple[bool, bool], tuple[OutputWanted, ...]] = {
            (explain, binary): tuple(OutputWanted(each.name, binary) for each in self.specs(explain).values())
            for explain in (False, True)
            for binary in (False, True)
        }

    def specs(self, explain: bool) -> Mapping[str, OutputSpec]:
        """The outputs that a request may ask for, by name."""
        explained = (OutputSpec(CONTRIBUTIONS, "FP64", self.width), OutputSpec(CONTRIBUTIONS_BASE, "FP64"))
        return {each.name: each for each in (*self.outputs, *(explained if explain else ()))}


def output_specs(served: ServedModel) -> tuple[OutputSpec, ...]:
    """The outputs that every answer of a version has, in order; `as_of` is ISO 8601 text."""
    first, last = OutputSpec(PREDICTION_ID, "BYTES"), OutputSpec(AS_OF, "BYTES")
    if served.task == "classification":
        return (first, OutputSpec("probability", "FP64", 0, OUTPUT.name), OutputSpec("answer", "BOOL"), last)
    if served.task == "regression":
        return (first, OutputSpec("prediction", "FP64", 0, OUTPUT.name), last)
    own = (
        OutputSpec(
            f"output_{each.name}" if each.name in _OURS else each.name, DATATYPE_OF[each.type], each.width, each.name
        )
        for each in served.outputs
    )
    return (first, *own, last)


_KNOWN: dict[int, tuple[weakref.ref[ServedModel], Signature]] = {}


def signature_of(served: ServedModel) -> Signature:
    """The signature of a version; made once for each `ServedModel` and let go with it."""
    known = _KNOWN.get(id(served))
    if known is not None:
        return known[1]
    key, signature = id(served), Signature(served)
    _KNOWN[key] = (weakref.ref(served, lambda _gone: _KNOWN.pop(key, None)), signature)
    return signature
