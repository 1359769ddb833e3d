"""`millpond.toml` and the environment, read once into frozen settings. The only reader of the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from millpond.core.errors import NotFound, SettingsError
from millpond.core.names import NAME_RULE, did_you_mean, is_name

FILE_NAME = "millpond.toml"
STATE_NAME = ".millpond"
REDIS_RULE = "it is written redis://user:password@host:6379/0, rediss://... with TLS, or unix:///path"


_ALLOWED = {
    "engine": '"duckdb", "spark"',
    "master": '"local[*]", "local[4]", "spark://host:7077", "k8s://https://host:6443"',
    "remote": '"sc://host:15002"',
    "conf": 'such as {"spark.executor.memory" = "4g"}',
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProjectSection(_Section):
    """`[project]`: what the project is called, and where its definitions are."""

    name: str
    definitions: str = "definitions.py"


class SparkSection(_Section):
    """`[profiles.NAME.spark]`: where Spark runs.

    Attributes:
        master: "local[*]", "spark://host:7077", or "k8s://https://host:6443".
        remote: URL of a Spark Connect server, such as "sc://host:15002"; instead of `master`.
        conf: More of Spark's settings, such as {"spark.executor.memory" = "4g"}; numbers and booleans are taken too.
    """

    master: str = Field(default="local[*]", pattern=r"^(local(\[(\*|\d+)(,\s*\d+)?\])?|spark://.+|k8s://.+|yarn)$")
    remote: str | None = Field(default=None, pattern=r"^sc://.+")
    conf: dict[str, str] = Field(default_factory=dict)

    @field_validator("conf", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: _text(name, each) for name, each in _flat(value).items()}

    @model_validator(mode="after")
    def _one_place(self) -> SparkSection:
        if self.remote is not None and "master" in self.model_fields_set:
            raise ValueError("master and remote are both given; Spark runs in one place")
        return self


def _flat(settings: Mapping[str, object], before: str = "") -> dict[str, object]:
    """Settings by their whole names: TOML reads spark.executor.memory = "4g" as tables in tables."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def _text(name: str, value: object) -> str:
    if not name.startswith("spark."):
        raise ValueError(f"{name} is no setting of Spark's: they begin with spark.")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{name} is {value!r}, not a text, a number or a boolean")


class Profile(_Section):
    """`[profiles.NAME]`: where the parts live, and what they may use.

    Attributes:
        state: Folder of everything at rest, relative to the project.
        host: Address that the server listens on.
        port: Its port.
        serving_port: Port at which predictions are asked for directly, over HTTP; None, in the file `false`, leaves
            `port` alone for them.
        grpc_port: The same over gRPC; None, in the file `false`, is none.
        workers: Processes that answer predictions.
        prediction_log: When an answer leaves: "written" is once the operating system has its record, so that a loss
            of power may take the last hundredth of a second; "commit" is once the record is on the disk.
        model_memory: Bytes from which the process of a version that serves natively is replaced; None is no bound.
        model_seconds: Seconds that one call of such a process may take; it is ended and started again then.
        engine: What computes derived tables, checks and training sets. Small reads are always DuckDB's.
        threads: Threads of the query engine and of training; None means one a core.
        memory_limit: Memory of the query engine, such as "4GB"; None means 60 % of the machine's.
        redis: URL of the Redis or Valkey that servers share their online store through; None keeps it on this machine.
        body_limit: Greatest request body of a prediction, in bytes.
        spark: Where Spark runs, for `engine = "spark"` and for tables that are written for Spark.
    """

    state: str = STATE_NAME
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=1, le=65535)
    serving_port: int | None = Field(default=8322, ge=1, le=65535)
    grpc_port: int | None = Field(default=8323, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=256)
    prediction_log: Literal["commit", "written"] = "written"
    model_memory: int | None = Field(default=None, ge=64 << 20)
    model_seconds: float = Field(default=30.0, gt=0, le=3600)
    threads: int | None = Field(default=None, ge=1)
    memory_limit: str | None = None
    redis: str | None = Field(default=None, repr=False)
    body_limit: int = Field(default=16 << 20, ge=1024)
    engine: Literal["duckdb", "spark"] = "duckdb"
    spark: SparkSection = Field(default_factory=SparkSection)

    @field_validator("serving_port", "grpc_port", mode="before")
    @classmethod
    def _no_port(cls, value: object) -> object:
        return None if value is False else value  # TOML has no null

    @model_validator(mode="after")
    def _ports_of_their_own(self) -> Profile:
        ports = [each for each in (self.port, self.serving_port, self.grpc_port) if each is not None]
        if len(set(ports)) != len(ports):
            raise ValueError(f"port, serving_port and grpc_port are {', '.join(map(str, ports))}; each is its own")
        return self

    @field_validator("redis")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None and not is_redis_url(value):
            raise PydanticCustomError("redis_url", "no URL of Redis; {rule}", {"rule": REDIS_RULE})
        return value


class _File(_Section):
    project: ProjectSection
    profiles: dict[str, Profile] = Field(default_factory=dict)


class Settings(BaseModel):
    """A project under a profile.

    Attributes:
        root: The project's folder, absolute.
        name: The project's name.
        definitions: The Python file, or the package folder, with the definitions; absolute.
        profile_name: The profile in force.
        profile: Its values.
        token: A token from the environment, for clients of a server; None where there is none.
    """

    model_config = ConfigDict(frozen=True)

    root: Path
    name: str
    definitions: Path
    profile_name: str
    profile: Profile
    token: str | None = None

    @property
    def state(self) -> Path:
        """The folder of everything at rest."""
        return self.root / self.profile.state

    @property
    def lake(self) -> Path:
        return self.state / "lake"

    @property
    def online(self) -> Path:
        return self.state / "online"

    @property
    def spool(self) -> Path:
        return self.state / "spool"

    @property
    def serving(self) -> Path:
        """The folder of what serving processes are told."""
        return self.state / "serving"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def artifacts(self) -> Path:
        return self.state / "artifacts"

    @property
    def tracking_database(self) -> Path:
        return self.state / "mlflow.db"

    @property
    def platform_database(self) -> Path:
        return self.state / "platform.db"

    @property
    def token_file(self) -> Path:
        return self.state / "token"


def is_redis_url(text: str) -> bool:
    """Whether a text is a URL of Redis or Valkey."""
    try:
        parts = urlsplit(text)
        return (parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0) or (
            parts.scheme == "unix" and bool(parts.path)
        )
    except ValueError:  # a port that is none
        return False


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds `millpond.toml`.

    Raises:
        NotFound: There is none.
    """
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise NotFound(
        f"There is no {FILE_NAME} in {start} or above it",
        hint="go to a project's folder, or make one with `millpond init NAME`",
    )


def load_settings(
    start: Path | None = None, profile: str | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings of the project at or above `start` (default: MILLPOND_PROJECT, else the working folder).

    The profile is the argument, else MILLPOND_PROFILE, else "local". MILLPOND_REDIS overrides its `redis`.

    Raises:
        NotFound: There is no project.
        SettingsError: The file or a value in it is wrong.
    """
    variables = os.environ if environment is None else environment
    root = find_root((start or Path(variables.get("MILLPOND_PROJECT") or ".")).resolve())
    path = root / FILE_NAME
    contents = _parse(path)
    chosen = profile or variables.get("MILLPOND_PROFILE") or "local"
    profiles = {"local": Profile(), **contents.profiles}
    if chosen not in profiles:
        hint = did_you_mean(chosen, profiles, noun="profiles")
        raise SettingsError(f"There is no profile {chosen!r}", where=str(path), hint=hint)
    if not is_name(contents.project.name):
        raise SettingsError(f"project.name is {contents.project.name!r}", where=str(path), hint=NAME_RULE)
    found = profiles[chosen]
    if variables.get("MILLPOND_REDIS"):
        if not is_redis_url(variables["MILLPOND_REDIS"]):
            raise SettingsError("MILLPOND_REDIS is no URL of Redis", where="the environment", hint=REDIS_RULE)
        found = found.model_copy(update={"redis": variables["MILLPOND_REDIS"]})
    return Settings(
        root=root,
        name=contents.project.name,
        definitions=root / contents.project.definitions,
        profile_name=chosen,
        profile=found,
        token=variables.get("MILLPOND_TOKEN") or None,
    )


def _parse(path: Path) -> _File:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{FILE_NAME} cannot be read: {error}", where=str(path), hint="it must be TOML") from error
    try:
        return _File.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(_first(error), where=str(path), hint=_hint(error)) from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a setting"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "string_pattern_mismatch":
        return f"{key} is {problem.get('input')!r}"
    if problem["type"] == "value_error":
        return f"{key}: {problem['msg'].removeprefix('Value error, ')}"
    if problem["type"] == "redis_url":  # it may hold a password
        return f"{key} is {problem['msg']}"
    return f"{key} is {problem.get('input')!r}: {problem['msg']}"


def _hint(error: ValidationError) -> str:
    problem = error.errors()[0]
    if problem["loc"][-1] in _ALLOWED:
        return f"allowed: {_ALLOWED[str(problem['loc'][-1])]}"
    if problem["type"] not in ("extra_forbidden", "missing"):
        return "give a value of that kind, or leave the setting out for its default"
    location = [str(part) for part in problem["loc"]]
    section: type[BaseModel] = _File
    if location[0] == "project" and len(location) > 1:
        section = ProjectSection
    elif location[0] == "profiles" and len(location) > 2:
        section = SparkSection if len(location) > 3 and location[2] == "spark" else Profile
    return did_you_mean(location[-1], section.model_fields, noun="settings here")
