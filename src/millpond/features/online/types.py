"""Iceberg's types and Arrow's, as far as the online store tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def iceberg_type(arrow: pa.DataType) -> str:
    """The Iceberg type of a key column, as far as keys tell types apart."""
    import pyarrow as pa

    if pa.types.is_dictionary(arrow):
        return iceberg_type(arrow.value_type)
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision}, {arrow.scale})"
    kinds: dict[str, Callable[[pa.DataType], bool]] = {
        "long": pa.types.is_integer,
        "string": lambda each: (
            pa.types.is_string(each) or pa.types.is_large_string(each) or pa.types.is_string_view(each)
        ),
        "boolean": pa.types.is_boolean,
        "double": pa.types.is_floating,
        "date": pa.types.is_date,
        "timestamptz": pa.types.is_timestamp,
    }
    return next((name for name, fits in kinds.items() if fits(arrow)), str(arrow))


def lake_type(type_: str) -> pa.DataType | None:
    """The Arrow type of an Iceberg type; None for those that are taken as they come."""
    import pyarrow as pa

    if type_.startswith("decimal"):
        precision, _, scale = type_.removeprefix("decimal(").removesuffix(")").partition(",")
        return pa.decimal128(int(precision), int(scale))
    types: dict[str, pa.DataType] = {
        "int": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "string": pa.string(),
        "date": pa.date32(),
        "timestamptz": pa.timestamp("us", tz="UTC"),
    }
    return types.get(type_)
