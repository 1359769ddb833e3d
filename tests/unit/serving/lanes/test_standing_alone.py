"""What runs in a version's own environment needs neither Millpond nor a recent Python."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from millpond.serving import lanes
from millpond.serving.lanes.command import native_command
from millpond.serving.ports import ServedModel

HERE = Path(lanes.__file__).parent


@pytest.mark.parametrize("name", ["wire.py", "native.py"])
def test_it_is_python_3_9_and_imports_no_more_than_it_says(name: str) -> None:
    tree = ast.parse((HERE / name).read_text(), feature_version=(3, 9))
    checking = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(inner) for node in checking for line in node.body for inner in ast.walk(line)}
    found = set()
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif id(node) not in skipped and isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    needed = found - sys.stdlib_module_names - {"__future__"}
    assert needed <= ({"numpy"} if name == "wire.py" else {"numpy", "pandas", "yaml", "mlflow", "skops"})
    used = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "zip" not in used or "strict=" not in (HERE / name).read_text()


def test_another_environment_is_kept_apart_from_this_one() -> None:
    served = ServedModel("x", 3, "regression", None, (), None, {"a": "float64"})
    assert "-I" not in native_command(Path(sys.executable), HERE, served)
    assert native_command(Path("/else/bin/python"), HERE, served)[:3] == ("/else/bin/python", "-I", "-u")
