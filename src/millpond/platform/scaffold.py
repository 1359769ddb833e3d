"""The files of a new project."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from millpond.core.errors import NotFound, SettingsError
from millpond.settings.project import FILE_NAME

_SETTINGS = """\
[project]
name = "{name}"
definitions = "definitions.py"

# What differs for a team goes into a profile of its own: millpond --profile team ...
# [profiles.team]
# port = 8400
"""

_HEADER = '''\
"""What this project knows: tables, features, models."""

import millpond as mp
'''

_TABLE = """
{name} = mp.Table(
    "{name}",
    source="{source}",
    # key="...",   the column, or columns, that name a row
    # time="...",  the column with the instant at which a row's event happened
    # zone="Europe/Berlin",  where its clock readings say no zone
)
"""

_MODEL = """
# A model asks a question of the rows of a table. Uncomment, and name your own columns:
#
# churn = mp.Model(
#     "churn",
#     task=mp.Classification(label="churned"),
#     examples={table},
#     inputs=["age", "plan"],
#     gates=[mp.beats_baseline("log_loss")],
# )
"""


def create_project(folder: Path, data: Sequence[Path] = ()) -> Path:
    """Write `millpond.toml`, `definitions.py` and `.gitignore` into a folder, which is made if it is missing.

    Args:
        folder: Where; its name, made fit, names the project.
        data: Files for which the definitions declare a table each.

    Raises:
        SettingsError: There is a project in the folder already; nothing is changed.
        NotFound: A data file is missing; nothing is written.
    """
    folder = folder.resolve()
    if (folder / FILE_NAME).exists():
        raise SettingsError(f"There is a project in {folder} already", hint="edit its files, or choose another folder")
    for path in data:
        if not path.is_file():
            raise NotFound(f"There is no file {path}", hint="--data takes a CSV, Parquet or JSON lines file")
    tables = {_fit(path.name.split(".")[0], "data"): _from(folder, path) for path in data}
    declared = "".join(_TABLE.format(name=name, source=path.as_posix()) for name, path in tables.items())
    body = declared or _TABLE.format(name="customers", source="data/customers.csv").replace("\n", "\n# ").rstrip("# ")
    folder.mkdir(parents=True, exist_ok=True)
    definitions = folder / "definitions.py"
    if not definitions.exists():
        first = next(iter(tables), "customers")
        definitions.write_text(_HEADER + body + _MODEL.format(table=first), encoding="utf-8")
    ignored = folder / ".gitignore"
    if not ignored.exists():
        ignored.write_text(".millpond/\n__pycache__/\n", encoding="utf-8")
    (folder / FILE_NAME).write_text(_SETTINGS.format(name=_fit(folder.name, "project")), encoding="utf-8")
    return folder


def _from(folder: Path, path: Path) -> Path:
    """How the project names a file: relative where it lies in the project."""
    file = path.resolve()
    return file.relative_to(folder) if file.is_relative_to(folder) else file


def _fit(text: str, default: str) -> str:
    """A valid name as near to `text` as can be."""
    name = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]", "_", text.lower())).strip("_").lstrip("0123456789_")
    return name[:63] or default
