"""What may be loaded on the way to `import millpond` and `millpond --help`."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "alembic",
    "duckdb",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "numpy",
    "optuna",
    "pandas",
    "polars",
    "pyarrow",
    "pyiceberg",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "uvicorn",
}
LIGHT_ONLY = {*HEAVY, "pydantic", "narwhals", "typer", "rich"}


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_no_library():
    assert modules_after("import millpond") & LIGHT_ONLY == set()


def test_help_loads_no_heavy_library():
    code = "from millpond.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    assert modules_after(code) & HEAVY == set()


@pytest.mark.parametrize("path", sorted(Path("src/millpond").rglob("__init__.py")), ids=str)
def test_packages_only_hand_names_on(path):
    if path == Path("src/millpond/__init__.py"):  # where `mp.open` is, beside the names handed on
        return
    for line in path.read_text().splitlines():
        assert not line.startswith(("def ", "class ", "async def ", "if ", "for ", "@")), line


def test_every_public_name_is_there():
    import millpond

    for name in millpond.__all__:
        assert getattr(millpond, name) is not None
    assert millpond.__all__ == sorted(millpond.__all__)
