"""What a run records of a candidate, in MLflow's terms; and runs whose process died."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from millpond.core.time import format_instant, now
from millpond.registry.mlflow_library import perform
from millpond.registry.mlflow_model import mlflow_type
from millpond.registry.mlflow_tables import FINGERPRINT, TRAINED_BY
from millpond.registry.ports import Candidate
from millpond.registry.process_identity import is_alive, own_identity

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric

PROCESS, REFUSED = "millpond.process", "millpond.refused"
_BATCH = 100
_LONGEST_PARAM = 6000
_LONGEST_TAG = 5000


def own_tags(candidate: Candidate) -> dict[str, str]:
    """What a version's tags say of itself."""
    return {
        FINGERPRINT: candidate.lineage.fingerprint,
        TRAINED_BY: candidate.trained_by,
        "millpond.task": candidate.task,
    }


def start_run(client: MlflowClient, experiment_id: str, candidate: Candidate) -> str:
    """Begin a run that says which process it belongs to; its id."""
    code = candidate.lineage.code
    tags = {
        **candidate.tags,
        **own_tags(candidate),
        PROCESS: own_identity(),
        "millpond.training_set": candidate.lineage.training_set,
        "millpond.training_set_snapshot": str(candidate.lineage.training_set_snapshot),
        "millpond.code_dirty": str(code.dirty).lower(),
        "mlflow.user": candidate.trained_by,
        "mlflow.source.name": "millpond",
        "mlflow.source.type": "LOCAL",
    }
    if code.commit:
        tags["mlflow.source.git.commit"] = code.commit
    if code.branch:
        tags["mlflow.source.git.branch"] = code.branch
    tags = {name: value[:_LONGEST_TAG] for name, value in tags.items()}
    name = f"{candidate.model} {format_instant(now().replace(microsecond=0))}"
    return str(perform(lambda: client.create_run(experiment_id, tags=tags, run_name=name)).info.run_id)


def log_contents(client: MlflowClient, run_id: str, model_id: str, candidate: Candidate) -> None:
    """Parameters, metrics and datasets of a run. The metrics belong to the logged model too."""
    from mlflow.entities import Param

    params = [Param(name, _param(value)) for name, value in candidate.params.items()]
    metrics = list(_metrics(candidate, model_id))
    for some_params, some_metrics in _together(params, metrics):
        perform(lambda p=some_params, m=some_metrics: client.log_batch(run_id, params=p, metrics=m))  # type: ignore[misc]
    perform(lambda: client.log_inputs(run_id, datasets=_datasets(candidate)))


def _together(params: list[Any], metrics: list[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    left, right = iter(params), iter(metrics)
    while (some := list(islice(left, _BATCH))) + (more := list(islice(right, _BATCH))):
        yield some, more


def _param(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text[:_LONGEST_PARAM]


def _metrics(candidate: Candidate, model_id: str) -> Iterator[Metric]:
    from mlflow.entities import Metric

    logged_at = int(time.time() * 1000)
    for name, value in candidate.metrics.items():
        # MLflow would store an infinite metric as the largest number; "absent" is the truer answer.
        if not math.isinf(value):
            yield Metric(name, float(value), logged_at, 0, model_id=model_id)


def _datasets(candidate: Candidate) -> list[DatasetInput]:
    """The training set and each source table, with the snapshot that was read, as datasets of source type "iceberg"."""
    lineage = candidate.lineage
    columns = [{"type": mlflow_type(type), "name": name} for name, type in candidate.inputs.items()]
    schema = json.dumps({"mlflow_colspec": columns})
    known = bool(lineage.training_set)
    inputs = [_dataset(lineage.training_set, lineage.training_set_snapshot, "training", schema)] if known else []
    inputs += [_dataset(table, snapshot, "source", None) for table, snapshot in sorted(lineage.sources.items())]
    return inputs


def _dataset(table: str, snapshot: int, context: str, schema: str | None) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"table": table, "snapshot_id": snapshot})
    dataset = Dataset(name=table, digest=str(snapshot), source_type="iceberg", source=source, schema=schema)
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", context)])


def close_orphans(client: MlflowClient, experiment_id: str) -> None:
    """Mark runs as killed that say they are running, and whose process is gone; and what they wrote as failed."""
    found = perform(lambda: client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=1000))
    for run in found:
        process = run.data.tags.get(PROCESS)
        if process and not is_alive(process):
            _close(client, experiment_id, run.info.run_id)


def _close(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    models = perform(lambda: client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"))
    for model in models:
        perform(lambda id=model.model_id: client.finalize_logged_model(id, "FAILED"))  # type: ignore[misc]  # noqa: A006
    perform(lambda: client.set_terminated(run_id, "KILLED"))
