import sys

import pytest

from millpond.core.errors import DefinitionError, NotFound
from millpond.platform.loading import definition_files, load_definitions

TABLE = 'import millpond as mp\n{name} = mp.Table("{name}", key="id")\n'


def test_a_file_is_run_and_its_definitions_collected(tmp_path):
    (tmp_path / "definitions.py").write_text(TABLE.format(name="people"))
    assert set(load_definitions(tmp_path / "definitions.py").tables) == {"people"}


def test_every_file_of_a_folder_is_run(tmp_path):
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "one.py").write_text(TABLE.format(name="one"))
    (folder / "two.py").write_text(TABLE.format(name="two"))
    assert set(load_definitions(folder).tables) == {"one", "two"}


def test_neighbours_can_be_imported_and_two_projects_do_not_mix(tmp_path):
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "helper.py").write_text(f'NAME = "{name}"\n')
        (folder / "definitions.py").write_text("import helper\nimport millpond as mp\nt = mp.Table(helper.NAME)\n")
    for name in ("first", "second"):
        assert set(load_definitions(tmp_path / name / "definitions.py").tables) == {name}
    assert "helper" not in sys.modules
    assert str(tmp_path / "first") not in sys.path


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("import millpond as mp\nx = mp.Tabel('t')\n", "AttributeError", 2),
        ("import millpond as mp\nx = mp.Table('t', kee='id')\n", "unexpected keyword argument 'kee'", 2),
        ("x = (\n", "SyntaxError", 1),
        ("import nothing_of_this_name\n", "No module named", 1),
    ],
)
def test_a_file_that_does_not_run_is_told_with_its_line(tmp_path, text, what, line):
    path = tmp_path / "definitions.py"
    path.write_text(text)
    with pytest.raises(DefinitionError) as caught:
        load_definitions(path)
    assert what in caught.value.what
    assert caught.value.where == f"{path}:{line}"


def test_no_file(tmp_path):
    with pytest.raises(NotFound, match="no definitions at"):
        load_definitions(tmp_path / "definitions.py")


def test_code_is_small_text_files_without_hidden_ones(tmp_path):
    (tmp_path / "definitions.py").write_text("x = 1\n")
    (tmp_path / "flights.sql").write_text("SELECT 1\n")
    (tmp_path / "data.csv").write_text("a\n")
    (tmp_path / "big.py").write_text("#" * (300 << 10))
    for hidden in (".venv", ".millpond", "__pycache__", "deep"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "inner.py").write_text("y = 1\n")
    found = definition_files(tmp_path / "definitions.py")
    assert set(found) == {"definitions.py", "flights.sql", "deep/inner.py"}
