"""Tensors as they travel, whatever wire carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from millpond.serving.rows import Column

    #: Values in row-major order: a list (str or bytes for BYTES; None is null), an array, or the raw layout.
    Data: TypeAlias = Sequence[Any] | np.ndarray[Any, Any] | bytes | memoryview

NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})


class Tensor(NamedTuple):
    """A tensor of a request, as it was sent; nothing of it is checked yet.

    Attributes:
        name: Its name.
        datatype: Of the protocol, such as "FP64".
        shape: Elements in each dimension.
        data: The elements in row-major order: a list of Python values, a NumPy array of the datatype, or bytes in the
            raw layout of the protocol. Only a list may be nested as `shape` says.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: Data


class OutTensor(NamedTuple):
    """A tensor of a response.

    Attributes:
        name: Its name.
        datatype: Of the protocol.
        shape: Elements in each dimension; the first is rows.
        column: Its values: a list of rows, or an array of that shape.
        binary: Whether the caller wants it in binary, where the wire leaves a choice.
        parameters: What the protocol has no field for.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    column: Column
    binary: bool = False
    parameters: Mapping[str, Any] = NO_PARAMETERS
