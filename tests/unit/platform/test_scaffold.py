import pytest

from millpond.core.errors import NotFound, SettingsError
from millpond.platform.loading import load_definitions
from millpond.platform.scaffold import create_project
from millpond.settings.project import load_settings


def test_a_new_project_loads(tmp_path):
    folder = create_project(tmp_path / "My Churn")
    settings = load_settings(folder, environment={})
    assert settings.name == "my_churn"
    assert load_definitions(settings.definitions).tables == {}
    assert (folder / ".gitignore").read_text().startswith(".millpond/")


def test_tables_are_declared_for_data(tmp_path):
    data = tmp_path / "Customer Base.csv"
    data.write_text("id,age\n1,30\n")
    folder = create_project(tmp_path / "p", [data])
    tables = load_definitions(folder / "definitions.py").tables
    assert tables["customer_base"].sources == (str(data),)


def test_nothing_is_overwritten(tmp_path):
    create_project(tmp_path / "p")
    before = (tmp_path / "p" / "millpond.toml").read_text()
    with pytest.raises(SettingsError, match="project in .* already"):
        create_project(tmp_path / "p")
    assert (tmp_path / "p" / "millpond.toml").read_text() == before


def test_definitions_already_there_are_kept(tmp_path):
    (tmp_path / "definitions.py").write_text("mine = 1\n")
    create_project(tmp_path)
    assert (tmp_path / "definitions.py").read_text() == "mine = 1\n"


def test_a_missing_data_file_leaves_nothing(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        create_project(tmp_path / "p", [tmp_path / "no.csv"])
    assert not (tmp_path / "p").exists()


def test_data_in_the_project_is_named_relative_to_it(tmp_path):
    (tmp_path / "orders.csv").write_text("id\n1\n")
    create_project(tmp_path, [tmp_path / "orders.csv"])
    assert load_definitions(tmp_path / "definitions.py").tables["orders"].sources == ("orders.csv",)
