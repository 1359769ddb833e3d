"""The model store on MLflow: an experiment and a registered model for each model, a run for each candidate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from millpond.core.errors import MillpondError, NotFound, VersionRefused
from millpond.core.names import did_you_mean
from millpond.registry import mlflow_library, mlflow_model, mlflow_runs
from millpond.registry.acceptance import TIME_LIMIT_SECONDS, CleanProcess
from millpond.registry.mlflow_connection import SCHEME, Connection
from millpond.registry.ports import Candidate, Lineage, Version
from millpond.registry.records import lineage_from_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

T = TypeVar("T")

_PAGE = 1000


class MLflowStore:
    """`ports.ModelStore` on MLflow's SQLite database and a directory of artifacts.

    Constructing one is free: nothing is imported, opened or made before the first call. Safe across threads and
    processes. A version exists when its row in the registry does, which is written last and in one transaction: a
    process that is killed before leaves a run, and files that nothing refers to.

    Args:
        database: MLflow's SQLite file.
        artifacts: Directory of runs' and models' files.
        time_limit: Seconds that the clean process has for loading and predicting.
    """

    def __init__(self, database: Path, artifacts: Path, *, time_limit: float = TIME_LIMIT_SECONDS) -> None:
        self._connection = Connection(database, artifacts)
        self._time_limit = time_limit

    def make_ready(self) -> None:
        """Import MLflow and open the database, so that the next call need not; worth a thread beside other work."""
        _ = self._connection.client

    # --- writing

    def register(self, candidate: Candidate) -> Version:
        """See `ports.ModelStore.register`.

        A run that belongs to a process which no longer exists is marked as killed on the way.
        """
        _require_example(candidate)
        with CleanProcess(self._time_limit) as clean:
            client = self._connection.client
            experiment = self._experiment(candidate.model)
            mlflow_runs.close_orphans(client, experiment)
            run_id = mlflow_runs.start_run(client, experiment, candidate)
            try:
                model_id = self._write(candidate, experiment, run_id, clean)
                version = self._commit(candidate, run_id, model_id)
            except BaseException as error:
                _fail(client, run_id, error)
                raise
        self._connection.optimize()
        return self._version(version, self._call(lambda: client.get_run(run_id)), ())

    def set_alias(self, model: str, alias: str, number: int) -> None:
        """See `ports.ModelStore.set_alias`.

        Raises:
            NotFound: There is no such version.
        """
        self.version(model, number)
        self._call(lambda: self._client.set_registered_model_alias(model, alias, str(number)))

    # --- reading

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""
        found = _pages(lambda token: self._client.search_registered_models(max_results=_PAGE, page_token=token))
        return sorted(model.name for model in found if model.latest_versions)

    def versions(self, model: str) -> list[Version]:
        found = self._model_versions(model)
        if not found:
            return []
        aliases = self._aliases(model)
        runs = self._runs(model)
        return [self._version(one, runs[one.run_id], aliases.get(int(one.version), ())) for one in found]

    def version(self, model: str, which: int | str) -> Version:
        aliases = self._aliases(model)
        number = which if isinstance(which, int) else _number(which, aliases)
        found = None if number is None else self._find(lambda: self._client.get_model_version(model, str(number)))
        if found is None:
            raise self._no_version(model, which, aliases)
        run = self._call(lambda: self._client.get_run(found.run_id))
        return self._version(found, run, aliases.get(int(found.version), ()))

    def lineage(self, version: Version) -> Lineage:
        folder = self.directory(version) / mlflow_model.FOLDER
        diff = (folder / mlflow_model.DIFF).read_bytes().decode(errors="surrogateescape")
        return lineage_from_json((folder / mlflow_model.LINEAGE).read_text(encoding="utf-8"), diff)

    def spec(self, version: Version) -> dict[str, Any]:
        text = (self.directory(version) / mlflow_model.FOLDER / mlflow_model.SPEC).read_text(encoding="utf-8")
        return dict(json.loads(text))

    def directory(self, version: Version) -> Path:
        found = self._find(lambda: self._client.get_model_version_download_uri(version.model, str(version.number)))
        if found is None:
            raise self._no_version(version.model, version.number, {})
        directory = self._connection.directory(str(found))
        if not (directory / "MLmodel").is_file():
            raise NotFound(
                f"the files of {version} are missing", where=str(directory), hint="restore the directory from a copy"
            )
        return directory

    def report(self, version: Version) -> Path:
        report = self.directory(version) / mlflow_model.FOLDER / mlflow_model.REPORT
        if not report.is_file():
            raise NotFound(f"{version} has no report", where=str(report))
        return report

    # --- steps of register

    def _experiment(self, model: str) -> str:
        """The id of the model's experiment; it and the registered model are made where they do not exist."""
        from mlflow.exceptions import MlflowException

        client = self._connection.client
        for make in (
            lambda: client.create_experiment(model, artifact_location=f"{SCHEME}:/{model}"),
            lambda: client.create_registered_model(model),
        ):
            try:
                mlflow_library.retrying(make)
            except MlflowException as error:
                if mlflow_library.error_code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise mlflow_library.unexpected(error, f"adding model {model!r}") from error
        return str(self._call(lambda: client.get_experiment_by_name(model)).experiment_id)

    def _write(self, candidate: Candidate, experiment: str, run_id: str, clean: CleanProcess) -> str:
        """Write the model and have it checked; the id of MLflow's logged model."""
        client = self._connection.client
        logged = self._call(
            lambda: client.create_logged_model(
                experiment, candidate.model, run_id, tags=mlflow_runs.own_tags(candidate), model_type=candidate.task
            )
        )
        location, model_id = str(logged.artifact_location), str(logged.model_id)
        directory = self._connection.directory(location)
        try:
            mlflow_model.write_model(candidate, directory, run_id=run_id, model_id=model_id, location=location)
            mlflow_runs.log_contents(client, run_id, model_id, candidate)
            reason = clean.check(directory)
            if reason is not None:
                raise _refusal(candidate, reason)
        except BaseException:
            self._call(lambda: client.finalize_logged_model(model_id, "FAILED"))
            raise
        self._call(lambda: client.finalize_logged_model(model_id, "READY"))
        return model_id

    def _commit(self, candidate: Candidate, run_id: str, model_id: str) -> ModelVersion:
        from mlflow.entities import LoggedModelOutput

        client = self._connection.client
        location = str(self._call(lambda: client.get_logged_model(model_id)).artifact_location)
        if mlflow_model.REPORT in candidate.files:
            report = self._connection.directory(location) / mlflow_model.FOLDER / mlflow_model.REPORT
            self._call(lambda: client.log_artifact(run_id, str(report)))
        self._call(lambda: client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)]))
        self._call(lambda: client.set_terminated(run_id, "FINISHED"))
        tags = {**candidate.tags, **mlflow_runs.own_tags(candidate)}
        return self._call(
            lambda: client.create_model_version(candidate.model, location, run_id, tags=tags, model_id=model_id)
        )

    # --- steps of reading

    @property
    def _client(self) -> MlflowClient:
        return self._connection.client

    def _call(self, call: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException

        try:
            return mlflow_library.retrying(call)
        except MlflowException as error:
            raise mlflow_library.unexpected(error, "reading or writing its records") from error

    def _find(self, call: Callable[[], T]) -> T | None:
        """`call()`, or None where MLflow knows no such thing."""
        _ = self._client
        from mlflow.exceptions import MlflowException

        try:
            return mlflow_library.retrying(call)
        except MlflowException as error:
            if mlflow_library.error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise mlflow_library.unexpected(error, "looking something up") from error

    def _model_versions(self, model: str) -> list[ModelVersion]:
        found = _pages(
            lambda token: self._client.search_model_versions(f"name = '{model}'", max_results=_PAGE, page_token=token)
        )
        return sorted(found, key=lambda one: int(one.version))

    def _aliases(self, model: str) -> dict[int, tuple[str, ...]]:
        found = self._find(lambda: self._client.get_registered_model(model))
        aliases: dict[int, tuple[str, ...]] = {}
        for alias, number in sorted((found.aliases if found else {}).items()):
            aliases[int(number)] = (*aliases.get(int(number), ()), alias)
        return aliases

    def _runs(self, model: str) -> dict[str, Run]:
        experiment = self._call(lambda: self._client.get_experiment_by_name(model))
        found = _pages(
            lambda token: self._client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
        )
        return {run.info.run_id: run for run in found}

    def _version(self, found: ModelVersion, run: Run, aliases: Sequence[str]) -> Version:
        return Version(
            model=found.name,
            number=int(found.version),
            run_id=found.run_id,
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, tz=UTC),
            created_by=found.tags.get(mlflow_runs.TRAINED_BY, ""),
            aliases=tuple(sorted(aliases)),
            metrics=dict(run.data.metrics),
            fingerprint=found.tags.get(mlflow_runs.FINGERPRINT, ""),
            tags=mlflow_runs.user_tags(found.tags),
        )

    def _no_version(self, model: str, which: int | str, aliases: dict[int, tuple[str, ...]]) -> NotFound:
        models = self.models()
        if model not in models:
            return NotFound(f"there is no version of model {model!r}", hint=did_you_mean(model, models, noun="models"))
        numbers = ", ".join(str(one.version) for one in self._model_versions(model)[-12:])
        names = ", ".join(sorted(alias for some in aliases.values() for alias in some))
        known = f"versions: {numbers}" + (f"; aliases: {names}" if names else "; no aliases yet")
        return NotFound(f"model {model!r} has no version {which!r}", hint=known)


def _pages(page: Callable[[str | None], Any]) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        some = mlflow_library.retrying(lambda token=token: page(token))  # type: ignore[misc]
        found.extend(some)
        token = some.token
        if not token:
            return found


def _number(which: str, aliases: dict[int, tuple[str, ...]]) -> int | None:
    return next((number for number, names in aliases.items() if which in names), None)


def _require_example(candidate: Candidate) -> None:
    rows = len(candidate.input_example)
    if rows == 0 or rows != len(candidate.expected):
        raise VersionRefused(
            f"model {candidate.model!r} has {rows} rows in its input example and {len(candidate.expected)} expected "
            "predictions",
            hint="a version is accepted by its predictions of at least one row",
        )


def _refusal(candidate: Candidate, reason: str) -> VersionRefused:
    what, _, details = reason.partition("\n")
    error = VersionRefused(
        f"model {candidate.model!r} does not work in a clean process: {what}",
        where=f"estimator {type(candidate.estimator).__module__}.{type(candidate.estimator).__qualname__}",
        hint="it must load and predict with the installed packages alone: nothing from this session, its working "
        "directory or its environment",
    )
    if details:
        error.add_note(details)
    return error


def _fail(client: MlflowClient, run_id: str, error: BaseException) -> None:
    """Mark a run as failed, with the reason. Never hides the error that made it fail."""
    from contextlib import suppress

    reason = error.what if isinstance(error, MillpondError) else f"{type(error).__name__}: {error}"
    with suppress(Exception):
        mlflow_library.retrying(lambda: client.set_tag(run_id, mlflow_runs.REFUSED, reason[:5000]))
    with suppress(Exception):
        mlflow_library.retrying(lambda: client.set_terminated(run_id, "FAILED"))
