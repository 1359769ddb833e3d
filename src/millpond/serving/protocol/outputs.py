"""An answer as the tensors that a request asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from millpond.serving.ports import Answer, InferRequest
from millpond.serving.protocol.signature import (
    AS_OF,
    CONTRIBUTIONS,
    CONTRIBUTIONS_BASE,
    PREDICTION_ID,
    OutputSpec,
    signature_of,
)
from millpond.serving.protocol.tensors import NO_PARAMETERS, OutTensor

if TYPE_CHECKING:
    from millpond.serving.rows import Column

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; the offset is written as Z


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def instant_text(microseconds: int) -> str:
    """An instant, microseconds since 1970 UTC, as ISO 8601: "2013-12-01T08:00:00Z", as `format_instant` has it."""
    seconds, part = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{str(part + 1_000_000)[1:]}Z" if part else f"{_second(seconds)}Z"


def instant_texts(instants: Sequence[int]) -> list[str]:
    """Many instants as text; equal ones are written once."""
    if len(instants) == 1:
        return [instant_text(int(instants[0]))]
    listed: Sequence[int] = instants.tolist() if isinstance(instants, np.ndarray) else instants
    if listed.count(listed[0]) == len(listed):
        return [instant_text(listed[0])] * len(listed)
    texts = {instant: instant_text(instant) for instant in set(listed)}
    return [texts[instant] for instant in listed]


def output_tensors_of(request: InferRequest, answer: Answer) -> list[OutTensor]:
    """The tensors that answer a request, in the order asked for: one element a row, a row for vectors.

    Contributions are float64 of shape [rows, inputs] in the order of `ServedModel.inputs`; beside them stands the base
    of each row. Their parameter `unit` says in which space they add up. Both are left out where the answer has no
    explanation.
    """
    specs = signature_of(answer.served).specs(answer.explanation is not None)
    return [_tensor(specs[wanted.name], answer, wanted.binary) for wanted in request.outputs if wanted.name in specs]


def response_parameters(request: InferRequest, answer: Answer) -> dict[str, str]:
    """Parameters of the response: `as_of` where the request set it, `features_synced_at` where known, `variant`."""
    parameters = {"variant": answer.variant}
    if request.as_of is not None:
        parameters["as_of"] = instant_text(request.as_of)
    if answer.synced_at is not None:
        parameters["features_synced_at"] = instant_text(answer.synced_at)
    return parameters


def _tensor(spec: OutputSpec, answer: Answer, binary: bool) -> OutTensor:
    count = len(answer.ids)
    shape = (count, spec.width) if spec.width else (count,)
    explained = spec.name in (CONTRIBUTIONS, CONTRIBUTIONS_BASE) and answer.explanation is not None
    parameters = {"unit": answer.explanation.unit} if explained and answer.explanation else NO_PARAMETERS
    return OutTensor(spec.name, spec.datatype, shape, column_of(spec, answer), binary, parameters)


def column_of(spec: OutputSpec, answer: Answer) -> Column:
    """The values of an output: a row an element, a list or an array."""
    if spec.source:
        return answer.outputs[spec.source]
    if spec.name == PREDICTION_ID:
        return answer.ids if isinstance(answer.ids, list) else list(answer.ids)
    if spec.name == AS_OF:
        return instant_texts(answer.as_of)
    if answer.explanation is not None and spec.name == CONTRIBUTIONS:
        contributions: Column = answer.explanation.contributions
        return contributions
    if answer.explanation is not None and spec.name == CONTRIBUTIONS_BASE:
        return [answer.explanation.base] * len(answer.ids)
    return answer.answers if isinstance(answer.answers, (list, np.ndarray)) else list(answer.answers or ())
