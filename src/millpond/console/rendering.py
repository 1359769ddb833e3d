"""Pages from templates, and how values look on them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from millpond.core.errors import MillpondError
from millpond.core.time import format_instant, now
from millpond.platform.read_models import Reference

_TEMPLATES = Path(__file__).parent / "templates"
_PAGES = {"table": "/tables/", "view": "/features/", "model": "/models/", "deployment": "/models/"}
_NONE = "\N{EN DASH}"
_AGES = ((60, "second"), (60, "minute"), (24, "hour"), (30, "day"), (12, "month"), (math.inf, "year"))


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a piece of one, as an answer. `identity` and `path` are known in every template."""
    identity = getattr(request.state, "identity", None)
    text = _environment().get_template(template).render(identity=identity, path=request.url.path, **values)
    return HTMLResponse(text, status)


def error_page(request: Request, status: int, error: MillpondError, refresh: int | None = None) -> HTMLResponse:
    """What went wrong, in the user's words; a piece of a page where htmx asked. `refresh`: seconds to the next try."""
    partial = "hx-request" in request.headers
    template = "pieces/problem.html" if partial else "error.html"
    response = page(request, template, status, error=error, shown=status, refresh=refresh)
    if refresh is not None:
        response.headers["retry-after"] = str(refresh)
    return response


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=count,
        number=number,
        measured=measured,
        percent=percent,
        instant=instant,
        ago=ago,
        value=value,
        short=short,
        sentence=sentence,
        seconds=seconds,
    )
    environment.globals.update(link=link)
    return environment


def count(whole: int | None) -> str:
    """A whole number with its thousands apart: "336,776"."""
    return _NONE if whole is None else f"{whole:,}"


def number(measured: float | None) -> str:
    """A measured value with four digits: "0.7512", "12.35", "1,234"."""
    if measured is None or not math.isfinite(measured):
        return _NONE
    if measured == 0 or 1e-3 <= abs(measured) < 1e6:
        digits = 4 if abs(measured) < 10 else 2 if abs(measured) < 1000 else 0
        return f"{measured:,.{digits}f}"
    return f"{measured:.3g}"


def measured(found: float | None) -> str:
    """A value that occurs, as short as it can be said: "62", "12.35", "336,776"."""
    if found is not None and found == int(found) and abs(found) < 1e15:
        return f"{int(found):,}"
    return number(found)


def percent(share: float) -> str:
    return f"{share * 100:.1f}%"


def seconds(length: float | None) -> str:
    if length is None:
        return _NONE
    return f"{length:.1f} s" if length < 90 else f"{length / 60:.1f} min"


def instant(moment: datetime | None) -> Markup:
    """An instant in UTC, to the second, with its exact value in the markup."""
    if moment is None:
        return escape(_NONE)
    exact = format_instant(moment)
    text = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, exact, text)


def ago(moment: datetime | None) -> Markup:
    """How long before now: "3 minutes ago", with the exact instant in the markup."""
    if moment is None:
        return escape(_NONE)
    length, exact = (now() - moment).total_seconds(), format_instant(moment)
    text = "just now"
    if length < 0:
        text = exact
    elif length >= 10:
        for size, unit in _AGES:
            if length < size:
                whole = int(length)
                text = f"{whole} {unit}{'' if whole == 1 else 's'} ago"
                break
            length /= size
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, exact, text)


def value(found: Any) -> Markup:
    """A value of a table or a request, told apart by type; null is said so."""
    if found is None:
        return Markup('<span class="null">null</span>')
    if isinstance(found, bool):
        return escape("yes" if found else "no")
    if isinstance(found, datetime):
        return instant(found)
    if isinstance(found, float):
        return Markup('<span title="{}">{}</span>').format(repr(found), f"{found:.6g}")
    if isinstance(found, (Mapping, list, tuple)):
        return Markup("<code>{}</code>").format(json.dumps(found, default=str, ensure_ascii=False))
    return escape(str(found))


def sentence(text: str) -> str:
    """A hint as it stands on a page: with a capital."""
    return text[:1].upper() + text[1:]


def short(text: str | None, length: int = 10) -> str:
    """The beginning of a long identifier."""
    return _NONE if text is None else text[:length]


def link(reference: Reference) -> str:
    """The page of a thing."""
    return _PAGES[reference.kind] + reference.name
