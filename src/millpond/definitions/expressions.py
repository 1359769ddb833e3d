"""Row expressions: Narwhals expressions, and what can be read off them without running them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import narwhals as nw

_OPERATORS = {
    "__eq__": "=",
    "__ne__": "!=",
    "__lt__": "<",
    "__le__": "<=",
    "__gt__": ">",
    "__ge__": ">=",
    "__add__": "+",
    "__sub__": "-",
    "__mul__": "*",
    "__truediv__": "/",
    "__floordiv__": "//",
    "__mod__": "%",
    "__pow__": "**",
    "__and__": "and",
    "__or__": "or",
}


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
    """A stable text of the expression, for fingerprints."""
    return repr(expression)


def readable(expression: Any) -> str:
    """The expression as a person would write it, such as `arr_delay >= 30`, for pages."""
    text = ""
    for node in expression._nodes:
        arguments = [_operand(each) for each in (*node.exprs, *node.kwargs.values())]
        if node.name == "col":
            text = ", ".join(node.kwargs["names"])
        elif node.name in _OPERATORS and len(arguments) == 1:
            text = f"{_bracketed(text)} {_OPERATORS[node.name]} {_bracketed(arguments[0])}"
        elif node.name == "__invert__":
            text = f"not {_bracketed(text)}"
        elif not text:
            text = f"{node.name}({', '.join(arguments)})"
        else:
            text = f"{_bracketed(text)}.{node.name}({', '.join(arguments)})"
    return text


def _operand(value: Any) -> str:
    return readable(value) if is_expression(value) else repr(value)


def _bracketed(text: str) -> str:
    return f"({text})" if " " in text and not text.endswith((")", "]")) else text
