"""The model store on MLflow: an experiment and a registered model for each model, a run for each candidate."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import MillpondError, NotFound, VersionRefused
from millpond.core.names import did_you_mean
from millpond.registry import mlflow_library, mlflow_model, mlflow_runs
from millpond.registry.acceptance import TIME_LIMIT_SECONDS, CleanProcess
from millpond.registry.mlflow_connection import SCHEME, Connection, artifact_directory
from millpond.registry.mlflow_tables import MLflowTables
from millpond.registry.ports import Candidate, Lineage, Version
from millpond.registry.records import lineage_from_json

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        self._tables = MLflowTables(database.absolute())
        self._artifacts = artifacts.absolute()
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
                number = self._commit(candidate, run_id, model_id)
            except BaseException as error:
                _fail(client, run_id, error)
                raise
        self._connection.optimize()
        return self.version(candidate.model, number)

    def set_alias(self, model: str, alias: str, number: int) -> None:
        """See `ports.ModelStore.set_alias`.

        Raises:
            NotFound: There is no such version.
        """
        self.version(model, number)
        client = self._connection.client
        mlflow_library.perform(lambda: client.set_registered_model_alias(model, alias, str(number)), "moving an alias")

    # --- reading: without MLflow, in milliseconds

    def models(self) -> list[str]:
        """Names of the models that have a version, sorted."""
        return self._tables.models()

    def versions(self, model: str) -> list[Version]:
        """See `ports.ModelStore.versions`."""
        return self._tables.versions(model)

    def version(self, model: str, which: int | str) -> Version:
        """See `ports.ModelStore.version`."""
        found = self.versions(model)
        for one in found:
            if which == one.number or which in one.aliases:
                return one
        if not found:
            raise NotFound(
                f"there is no version of model {model!r}", hint=did_you_mean(model, self.models(), noun="models")
            )
        aliases = ", ".join(sorted(alias for one in found for alias in one.aliases))
        raise NotFound(
            f"model {model!r} has no version {which!r}",
            hint=f"versions: {', '.join(str(one.number) for one in found[-12:])}; aliases: {aliases or 'none yet'}",
        )

    def lineage(self, version: Version) -> Lineage:
        """See `ports.ModelStore.lineage`."""
        diff = self._file(version, mlflow_model.DIFF).read_bytes().decode(errors="surrogateescape")
        return lineage_from_json(self._file(version, mlflow_model.LINEAGE).read_text(encoding="utf-8"), diff)

    def spec(self, version: Version) -> dict[str, Any]:
        """See `ports.ModelStore.spec`."""
        file = self._file(version, mlflow_model.SPEC)
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            hint = "restore the directory from a copy, or serve another version"
            raise VersionRefused(f"a file of {version} is damaged", where=str(file), hint=hint) from error

    def directory(self, version: Version) -> Path:
        """See `ports.ModelStore.directory`. Nothing is copied; nothing may be changed in it."""
        try:
            directory = artifact_directory(version.location, self._artifacts)
        except ValueError as error:
            where = version.location or str(version)
            raise NotFound(f"the files of {version} are not in this store", where=where) from error
        if not (directory / "MLmodel").is_file():
            raise NotFound(
                f"the files of {version} are missing", where=str(directory), hint="restore the directory from a copy"
            )
        return directory

    def report(self, version: Version) -> Path:
        """See `ports.ModelStore.report`.

        Raises:
            NotFound: It was registered without one.
        """
        return self._file(version, mlflow_model.REPORT)

    def params(self, version: Version) -> dict[str, str]:
        """See `ports.ModelStore.params`."""
        return self._tables.params(version.run_id)

    def page(self, version: Version) -> str | None:
        """See `ports.ModelStore.page`."""
        experiment = self._tables.experiment(version.run_id)
        return None if experiment is None else f"/mlflow/#/experiments/{experiment}/runs/{version.run_id}"

    def _file(self, version: Version, name: str) -> Path:
        file = self.directory(version) / mlflow_model.FOLDER / name
        if not file.is_file():
            raise NotFound(
                f"{version} has no {name}",
                where=str(file),
                hint="something else than Millpond may have registered it",
            )
        return file

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
        return str(mlflow_library.perform(lambda: client.get_experiment_by_name(model)).experiment_id)

    def _write(self, candidate: Candidate, experiment: str, run_id: str, clean: CleanProcess) -> str:
        """Write the model and have it checked; the id of MLflow's logged model."""
        client = self._connection.client
        logged = mlflow_library.perform(
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
            with suppress(Exception):
                mlflow_library.perform(lambda: client.finalize_logged_model(model_id, "FAILED"))
            raise
        mlflow_library.perform(lambda: client.finalize_logged_model(model_id, "READY"))
        return model_id

    def _commit(self, candidate: Candidate, run_id: str, model_id: str) -> int:
        """Write the version, as the very last thing; its number."""
        from mlflow.entities import LoggedModelOutput

        client = self._connection.client
        location = str(mlflow_library.perform(lambda: client.get_logged_model(model_id)).artifact_location)
        if mlflow_model.REPORT in candidate.files:
            report = self._connection.directory(location) / mlflow_model.FOLDER / mlflow_model.REPORT
            mlflow_library.perform(lambda: client.log_artifact(run_id, str(report)))
        mlflow_library.perform(lambda: client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)]))
        mlflow_library.perform(lambda: client.set_terminated(run_id, "FINISHED"))
        tags = {**candidate.tags, **mlflow_runs.own_tags(candidate)}
        made = mlflow_library.perform(
            lambda: client.create_model_version(candidate.model, location, run_id, tags=tags, model_id=model_id)
        )
        return int(made.version)


def _require_example(candidate: Candidate) -> None:
    rows = len(candidate.input_example)
    if rows == 0 or (candidate.source is None and rows != len(candidate.expected)):
        raise VersionRefused(
            f"model {candidate.model!r} has {rows} rows in its input example and {len(candidate.expected)} expected "
            "predictions",
            hint="a version is accepted by its predictions of at least one row",
        )


def _refusal(candidate: Candidate, reason: str) -> VersionRefused:
    what, _, details = reason.partition("\n")
    error = VersionRefused(
        f"model {candidate.model!r} does not work in a clean process: {what}",
        where=str(candidate.source or "")
        or f"estimator {type(candidate.estimator).__module__}.{type(candidate.estimator).__qualname__}",
        hint="it must load and predict with the installed packages alone: nothing from this session, its working "
        "directory or its environment",
    )
    if details:
        error.add_note(details)
    return error


def _fail(client: MlflowClient, run_id: str, error: BaseException) -> None:
    """Mark a run as failed, with the reason. Never hides the error that made it fail."""
    reason = error.what if isinstance(error, MillpondError) else f"{type(error).__name__}: {error}"
    with suppress(Exception):
        mlflow_library.retrying(lambda: client.set_tag(run_id, mlflow_runs.REFUSED, reason[:5000]))
    with suppress(Exception):
        mlflow_library.retrying(lambda: client.set_terminated(run_id, "FAILED"))
