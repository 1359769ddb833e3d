"""Types: from Iceberg to Spark, with the field ids by which Spark finds columns in files; and from Spark to Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.types import IcebergType

    from millpond.lake.scan import ScanPlan

_FIELD_ID = "parquet.field.id"


def spark_schema(plan: ScanPlan) -> Any:
    """The columns of a plan as a Spark schema that finds them by their ids in the plan's files.

    A column that was renamed, or took the name of another, is called by its id here: Spark finds its values by the
    id, but prunes files and reads types by the name, which is that of another column in some file.
    """
    from pyspark.sql import types as s

    names = {each: _read_name(plan, each.name, each.field_id) for each in plan.columns}
    return s.StructType([_field(name, plan.types[each.name], each.field_id) for each, name in names.items()])


def _read_name(plan: ScanPlan, name: str, field_id: int) -> str:
    """What a column is called when it is read."""
    return f"__field_{field_id}" if name in plan.renamed else name


def _field(name: str, type: IcebergType, id: int) -> Any:
    from pyspark.sql import types as s

    return s.StructField(name, spark_type(type), True, {_FIELD_ID: id})


def spark_type(type: IcebergType) -> Any:
    """The Spark type that reads an Iceberg type."""
    from pyiceberg import types as t
    from pyspark.sql import types as s

    if isinstance(type, t.DecimalType):
        return s.DecimalType(type.precision, type.scale)
    if isinstance(type, t.FixedType):
        return s.BinaryType()
    if isinstance(type, t.StructType):
        return s.StructType([_field(each.name, each.field_type, each.field_id) for each in type.fields])
    if isinstance(type, t.ListType):
        return s.ArrayType(spark_type(type.element_type), True)
    if isinstance(type, t.MapType):
        return s.MapType(spark_type(type.key_type), spark_type(type.value_type), True)
    simple = {
        "boolean": s.BooleanType,
        "int": s.IntegerType,
        "long": s.LongType,
        "float": s.FloatType,
        "double": s.DoubleType,
        "string": s.StringType,
        "date": s.DateType,
        "time": s.TimeType,
        "timestamptz": s.TimestampType,
        "timestamp": s.TimestampNTZType,
        "binary": s.BinaryType,
    }
    if str(type) not in simple:
        raise DataError(f"Spark cannot read the type {type}", hint="cast the column, or read the table with DuckDB")
    return simple[str(type)]()


def arrow_schema(schema: Any) -> pa.Schema:
    """A Spark schema in Arrow's types: what the rows of a query are handed on as.

    Raises:
        DataError: A column has a type that cannot be handed on, such as an interval of months.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import to_arrow_schema

    try:
        found: pa.Schema = to_arrow_schema(schema, timezone="UTC")
    except (PySparkException, TypeError) as error:
        raise DataError(
            f"The query gives a column of a type that cannot be handed on: {schema.simpleString()}",
            hint="cast it to a number, a string, a date, a timestamp or bytes",
        ) from error
    return _bare(found)


def _bare(schema: pa.Schema) -> pa.Schema:
    """The schema with nullable columns, without Spark's notes, and times of day in microseconds, as files hold them."""
    import pyarrow as pa

    return pa.schema(
        [pa.field(field.name, pa.time64("us") if pa.types.is_time64(field.type) else field.type) for field in schema]
    )


def without_ids(schema: Any) -> Any:
    """A Spark schema whose columns are found by name: of files that a query's rows were put into."""
    from pyspark.sql import types as s

    def bare(type: Any) -> Any:
        if isinstance(type, s.StructType):
            return s.StructType([s.StructField(each.name, bare(each.dataType), True) for each in type.fields])
        if isinstance(type, s.ArrayType):
            return s.ArrayType(bare(type.elementType), True)
        if isinstance(type, s.MapType):
            return s.MapType(bare(type.keyType), bare(type.valueType), True)
        return type

    return bare(schema)
