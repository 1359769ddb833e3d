import pytest

from millpond.core.errors import NotFound, SettingsError
from millpond.settings.project import load_settings

PROJECT = '[project]\nname = "flights"\n'
SPARK = "[profiles.local.spark]\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "millpond.toml").write_text(PROJECT)
    return tmp_path


def test_defaults(project):
    settings = load_settings(project, environment={})
    assert settings.name == "flights"
    assert settings.definitions == project / "definitions.py"
    assert settings.profile_name == "local"
    assert settings.state == project / ".millpond"


def test_the_project_is_found_from_below(project):
    below = project / "notebooks" / "old"
    below.mkdir(parents=True)
    assert load_settings(below, environment={}).root == project


def test_no_project(tmp_path):
    with pytest.raises(NotFound, match="no millpond.toml") as caught:
        load_settings(tmp_path, environment={})
    assert "millpond init" in caught.value.hint


def test_the_environment_chooses_project_and_profile(project, tmp_path):
    (project / "millpond.toml").write_text(PROJECT + "[profiles.team]\nport = 9000\n")
    settings = load_settings(environment={"MILLPOND_PROJECT": str(project), "MILLPOND_PROFILE": "team"})
    assert (settings.profile_name, settings.profile.port) == ("team", 9000)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[project\n", "cannot be read", "TOML"),
        ("[project]\n", "project.name is missing", "settings here: definitions, name"),
        (PROJECT + "defintions = 'a.py'\n", "project.defintions is not a setting", "did you mean 'definitions'?"),
        (PROJECT + "[profiles.local]\nprt = 1\n", "profiles.local.prt is not a setting", "did you mean 'port'?"),
        (PROJECT + "[profiles.local]\nport = 0\n", "profiles.local.port is 0", ""),
        (PROJECT + "[profiles.local]\nserving_port = 0\n", "profiles.local.serving_port is 0", ""),
        (PROJECT + "[profiles.local]\nworkers = 0\n", "profiles.local.workers is 0", ""),
        (PROJECT + "[profiles.local]\nport = 8322\n", "8322, 8322, 8323; each is its own", ""),
        (PROJECT + "[profile.local]\n", "profile is not a setting", "did you mean 'profiles'?"),
        (PROJECT + "[profiles.local]\nengine = 'sprak'\n", "profiles.local.engine is 'sprak'", '"duckdb", "spark"'),
        (PROJECT + SPARK + "mastr = 'x'\n", "spark.mastr is not a setting", "did you mean 'master'?"),
        (PROJECT + SPARK + "master = 'spark:h'\n", "profiles.local.spark.master is 'spark:h'", "spark://host:7077"),
        (PROJECT + SPARK + "remote = 'http://h'\n", "profiles.local.spark.remote is 'http://h'", "sc://host:15002"),
        (PROJECT + SPARK + "master = 'local'\nremote = 'sc://h'\n", "in one place", ""),
        (PROJECT + SPARK + "conf = {cores = 1}\n", "cores is no setting of Spark's", "spark.executor.memory"),
        (PROJECT + SPARK + "conf = {spark.x = [1]}\n", "spark.x is [1]", "spark.executor.memory"),
        ('[project]\nname = "My Flights"\n', "project.name is 'My Flights'", "lower-case"),
    ],
)
def test_mistakes_are_named_with_file_and_match(project, text, what, hint):
    (project / "millpond.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(project, environment={})
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.where == str(project / "millpond.toml")


def test_ports_of_serving_can_be_left_out(project):
    assert load_settings(project, environment={}).profile.serving_port == 8322
    (project / "millpond.toml").write_text(PROJECT + "[profiles.local]\nserving_port = false\ngrpc_port = false\n")
    profile = load_settings(project, environment={}).profile
    assert (profile.serving_port, profile.grpc_port, profile.workers) == (None, None, 1)


def test_where_spark_runs(project):
    text = f"""{PROJECT}[profiles.local]
engine = "spark"
[profiles.local.spark]
master = "k8s://https://host:6443"
[profiles.local.spark.conf]
spark.executor.instances = 2
"spark.executor.memory" = "4g"
spark.dynamicAllocation.enabled = false
"""
    (project / "millpond.toml").write_text(text)
    profile = load_settings(project, environment={}).profile
    assert (profile.engine, profile.spark.master) == ("spark", "k8s://https://host:6443")
    assert profile.spark.conf == {
        "spark.executor.instances": "2",
        "spark.executor.memory": "4g",
        "spark.dynamicAllocation.enabled": "false",
    }


def test_an_unknown_profile(project):
    with pytest.raises(SettingsError, match="no profile 'team'"):
        load_settings(project, "team", environment={})


@pytest.mark.parametrize(
    "url", ["redis://:secret@host:6379/0", "rediss://u:secret@host", "unix:///run/redis.sock?db=1"]
)
def test_redis(project, url):
    (project / "millpond.toml").write_text(PROJECT + f'[profiles.local]\nredis = "{url}"\n')
    assert load_settings(project, environment={}).profile.redis == url
    environment = {"MILLPOND_REDIS": "redis://other"}
    assert load_settings(project, environment=environment).profile.redis == "redis://other"


@pytest.mark.parametrize("url", ["http://:secret@host", "redis://:secret@host:port", "redis://", "secret"])
def test_what_is_no_url_of_redis_is_not_told(project, url):
    (project / "millpond.toml").write_text(PROJECT + f'[profiles.local]\nredis = "{url}"\n')
    with pytest.raises(SettingsError, match="profiles.local.redis is no URL of Redis") as error:
        load_settings(project, environment={})
    assert "secret" not in str(error.value)
    (project / "millpond.toml").write_text(PROJECT)
    with pytest.raises(SettingsError, match="MILLPOND_REDIS is no URL of Redis") as error:
        load_settings(project, environment={"MILLPOND_REDIS": url})
    assert "secret" not in str(error.value)
