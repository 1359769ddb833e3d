"""The reference is made from the code, and says all of it."""

import importlib.util
from pathlib import Path

import millpond

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load():
    specification = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_files_are_what_the_code_says():
    for name, text in load().pages().items():
        assert (DOCS / "reference" / name).read_text() == text, "run: python docs/reference.py"


def test_every_public_name_has_its_entry():
    grouped = {name for names in load().GROUPS.values() for name in names}
    assert grouped == set(millpond.__all__) - {"MillpondError"}
