"""Row expressions: Narwhals expressions, and what can be read off them without running them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import narwhals as nw


def col(*names: str) -> nw.Expr:
    """A column of the rows at hand, for labels, checks, filters and request features.

    The result is a `narwhals.Expr`; the same expression runs on DuckDB, Spark and Arrow.
    """
    import narwhals as nw

    return nw.col(*names)


def is_expression(value: object) -> bool:
    """Whether `value` is a Narwhals expression (without importing Narwhals when nobody has)."""
    return type(value).__module__.startswith("narwhals") and hasattr(value, "_nodes")


def root_columns(expression: Any) -> tuple[str, ...]:
    """The columns that an expression reads, in the order of first use."""
    return tuple(dict.fromkeys(_roots(expression)))


def _roots(expression: Any) -> Iterator[str]:
    for node in expression._nodes:
        if node.name == "col":
            yield from node.kwargs["names"]
        for inner in (*node.exprs, *node.kwargs.values()):
            values = inner if isinstance(inner, (list, tuple)) else (inner,)
            for value in values:
                if is_expression(value):
                    yield from _roots(value)


def expression_text(expression: Any) -> str:
    """A stable text of the expression, for fingerprints and pages."""
    return repr(expression)
