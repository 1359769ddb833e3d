"""Training a model: everything upstream brought up to date, then a version, judged and perhaps promoted."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import Conflict, VersionRefused
from millpond.core.fingerprints import fingerprint
from millpond.core.time import now
from millpond.definitions.gates import LiveGate
from millpond.definitions.models import Model
from millpond.lake.ports import Snapshot
from millpond.platform import live_gates, log_policies, release, tiers, versions
from millpond.platform.alone import alone
from millpond.platform.applied import record
from millpond.platform.loading import definition_files
from millpond.platform.platform import Platform
from millpond.platform.progress import Step, step
from millpond.platform.runtimes import scorer
from millpond.platform.tables import refresh
from millpond.platform.training_sets import TrainingSet, read_rows, read_sample, training_set
from millpond.registry.ports import Candidate, Lineage, Version

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.training.gates import Champion, GateResult
    from millpond.training.train import Trained

#: Packages whose version can change what training gives.
DECISIVE_PACKAGES = ("lightgbm", "numpy", "optuna", "pandas", "scikit-learn", "scipy", "skrub")


@dataclass(frozen=True)
class TrainResult:
    """What `train` did.

    Attributes:
        version: The version that is up to date now.
        trained: Whether it was trained by this call, rather than found.
        gates: What the gates said; empty where nothing was trained.
        promoted: Whether this call made the version champion.
        report: The version's HTML report.
    """

    version: Version
    trained: bool
    gates: Sequence[GateResult]
    promoted: bool
    report: Path


def train(platform: Platform, name: str, *, force: bool = False) -> TrainResult:
    """Bring a model up to date: tables, checks, training set, version, gates.

    Nothing is done again whose inputs, code and packages have not changed, unless `force` is given, which trains
    anew. A version that passes all gates becomes champion, or begins the release that its model declares; one that
    does not stays challenger.

    Raises:
        NotFound: No such model, or a table was never ingested.
        CheckFailed: A blocking check found violations.
        TrainingError: The model cannot be trained on this data.
        VersionRefused: The trained model could not be loaded in a clean process.
    """
    model = platform.definitions.model(name)
    with alone(platform, f"train-{name}"):
        return _train(platform, model, force=force)


def _train(platform: Platform, model: Model, *, force: bool) -> TrainResult:
    snapshots = refresh(platform, platform.definitions.upstream(model))
    examples = training_set(platform, model, snapshots)
    lineage = _lineage(platform, model, examples, snapshots)
    known = None if force else _version_with(platform, model, lineage.fingerprint)
    if known is not None:
        with step(platform.listener, f"train {model.name}") as current:
            current.up_to_date(f"version {known.number}")
        record(platform, model)
        log_policies.take_over(platform, [model.name])
        return _finish(platform, known)
    # The model store takes seconds to load; it does so beside the fit.
    threading.Thread(target=platform.store.make_ready, daemon=True).start()
    with step(platform.listener, f"train {model.name}") as current:
        champion = _champion(platform, model, examples)
        live = live_gates.judge_champion(platform, model)
        trained = _fit(platform, model, examples, champion, live, current)
        current.detail = _headline(trained)
    with step(platform.listener, f"register {model.name}") as current:
        files, tier = _tier(platform, model, examples, trained)
        candidate = _candidate(platform, model, examples, lineage, trained)
        candidate = replace(candidate, spec={**candidate.spec, "tier": tier}, files={**candidate.files, **files})
        version = platform.store.register(candidate)
        versions.pin(platform, version, lineage)
        record(platform, model)
        log_policies.take_over(platform, [model.name])
        current.detail = f"version {version.number}, loaded and tried in a clean process; {_served(tier)}"
    promoted = _judge(platform, version, trained.gates)
    return TrainResult(
        platform.store.version(model.name, version.number),
        True,
        trained.gates,
        promoted,
        platform.store.report(version),
    )


def _finish(platform: Platform, version: Version) -> TrainResult:
    """Judge a version whose training ended before that; one that was judged is left as it is."""
    from millpond.training.gates import GateResult

    report = platform.store.report(version)
    if _judged(platform, version):
        return TrainResult(version, False, (), False, report)
    versions.pin(platform, version, platform.store.lineage(version))
    text = (platform.store.directory(version) / "millpond" / "gates.json").read_text(encoding="utf-8")
    gates = [GateResult(**each) for each in json.loads(text)]
    promoted = _judge(platform, version, gates)
    return TrainResult(platform.store.version(version.model, version.number), False, gates, promoted, report)


def _judged(platform: Platform, version: Version) -> bool:
    """Whether it, or a later version, has been challenger: that alias is the last thing that judging sets."""
    later = [each for each in platform.store.versions(version.model) if each.number >= version.number]
    return any(versions.CHALLENGER in each.aliases for each in later)


def _fit(
    platform: Platform,
    model: Model,
    examples: TrainingSet,
    champion: Champion | None,
    live: Mapping[LiveGate, GateResult],
    current: Step,
) -> Trained:
    from millpond.training.data import TrainingData
    from millpond.training.train import train as fit

    columns = examples.columns
    data = TrainingData(
        rows=read_rows(platform, examples),
        keys=columns.keys,
        inputs=columns.inputs,
        slices=columns.slices,
        at=columns.at,
        label=columns.label,
        label_known=columns.label_known,
        null_labels=examples.counts["without_label"],
    )

    def progress(stage: str, done: int, total: int) -> None:
        current.detail = stage if total <= 1 else f"{stage} {done}/{total}"
        platform.listener(current)

    return fit(model, data, champion=champion, live=live, progress=progress)


def _champion(platform: Platform, model: Model, examples: TrainingSet) -> Champion | None:
    from millpond.training.gates import Champion

    version = versions.champion(platform, model.name)
    if version is None:
        return None
    return Champion(
        number=version.number,
        predict=scorer(platform, version, examples.columns.inputs),
        metrics=version.metrics,
        threshold=platform.store.spec(version)["threshold"],
    )


def _judge(platform: Platform, version: Version, gates: Sequence[GateResult]) -> bool:
    with step(platform.listener, f"judge {version}") as current:
        failed = [gate for gate in gates if not gate.passed]
        promoted = False
        if failed:
            current.detail = "not promoted: " + "; ".join(gate.reason for gate in failed)
        else:
            why = f"passed {len(gates)} gates" if gates else "no gates are declared"
            try:
                promoted, current.detail = _take_over(platform, version, why)
            except (VersionRefused, Conflict) as error:  # it served wrong when asked by number; another is on its way
                current.detail = f"not promoted: {error.what}"
        platform.store.set_alias(version.model, versions.CHALLENGER, version.number)
    return promoted


def _take_over(platform: Platform, version: Version, why: str) -> tuple[bool, str]:
    """Let a version that passed its gates take over as its model declares: whether it is champion, and how."""
    if release.declared_release(platform, version.model) is None:
        release.promote(platform, version.model, version.number, why=why)
        return True, f"champion: {why}"
    under_way = platform.access.releases.active(version.model)
    if under_way is not None and under_way.version == version.number:  # this call was killed before
        begun = under_way
    elif versions.CHAMPION in platform.store.version(version.model, version.number).aliases:
        return True, f"champion: {why}"
    else:
        begun = release.start(platform, version.model, version.number, why=why)
    if begun.state == "promoted":
        return True, f"champion: {why}"
    how = "it shadows the champion" if begun.state == "shadowing" else f"it answers {begun.share:.4g} of the requests"
    return False, f"being released: {how}"


def _lineage(platform: Platform, model: Model, examples: TrainingSet, snapshots: Mapping[str, Snapshot]) -> Lineage:
    import platform as machine

    from millpond.registry.environment import installed_packages
    from millpond.registry.git import code_state

    packages = installed_packages()
    meaning = {
        "model": model.describe(),
        "tables": {table.name: table.describe() for table in platform.definitions.upstream(model)},
    }
    decisive = {name: packages[name] for name in DECISIVE_PACKAGES if name in packages}
    return Lineage(
        training_set=examples.snapshot.table,
        training_set_snapshot=examples.snapshot.id,
        sources={name: snapshot.id for name, snapshot in snapshots.items()},
        definitions=meaning,
        fingerprint=fingerprint([examples.snapshot.id, model.describe(), decisive]),
        code=code_state(platform.settings.root),
        packages=packages,
        python=machine.python_version(),
        platform=machine.platform(),
    )


def _version_with(platform: Platform, model: Model, wanted: str) -> Version | None:
    return next((each for each in platform.store.versions(model.name) if each.fingerprint == wanted), None)


def _candidate(
    platform: Platform, model: Model, examples: TrainingSet, lineage: Lineage, trained: Trained
) -> Candidate:
    from millpond.training.report import Heading, render

    spec = versions.make_spec(platform, model, examples, trained)
    heading = Heading(description=model.description, owner=model.owner, trained_at=now(), trained_by=platform.user)
    report = render(trained, heading=heading, lineage=_report_lineage(lineage, examples))
    code = {f"code/{path}": content for path, content in definition_files(platform.settings.definitions).items()}
    return Candidate(
        model=model.name,
        task=model.task.kind,
        estimator=trained.estimator,
        inputs=examples.columns.inputs,
        threshold=trained.threshold,
        metrics=trained.metrics,
        params={**trained.params, "estimator": model.describe()["estimator"], "seed": model.seed},
        input_example=trained.input_example,
        expected=trained.expected,
        spec=spec,
        files={
            **code,
            "report.html": report.encode(),
            "gates.json": json.dumps([_gate(each) for each in trained.gates], indent=2).encode(),
        },
        lineage=lineage,
        trained_by=platform.user,
        tags={"training_seconds": f"{sum(trained.seconds.values()):.2f}"},
    )


def _tier(
    platform: Platform, model: Model, examples: TrainingSet, trained: Trained
) -> tuple[dict[str, bytes], dict[str, Any]]:
    from millpond.training.frame import to_frame
    from millpond.training.recipes import outputs_of

    inputs, task = examples.columns.inputs, model.task.kind

    def original(rows: pa.Table) -> Sequence[float]:
        found: list[float] = outputs_of(trained.estimator, task, to_frame(rows, inputs)).tolist()
        return found

    sample = read_sample(platform, examples, tiers.SAMPLE_ROWS)
    return tiers.prepare(trained.estimator, inputs, task, sample, original)


def _served(tier: Mapping[str, Any]) -> str:
    return "compiled" if tier["tier"] == "compiled" else f"served natively: {tier['why']}"


def _gate(gate: GateResult) -> dict[str, Any]:
    return {"gate": gate.gate, "passed": gate.passed, "value": gate.value, "other": gate.other, "reason": gate.reason}


def _report_lineage(lineage: Lineage, examples: TrainingSet) -> dict[str, Any]:
    commit = (lineage.code.commit or "none")[:12] + (" with uncommitted changes" if lineage.code.dirty else "")
    return {
        "Training set": f"{examples.snapshot} ({examples.snapshot.rows:,} rows)",
        "Table snapshots": {name: str(snapshot) for name, snapshot in lineage.sources.items()},
        "Code": commit,
        "Python": f"{lineage.python} on {lineage.platform}",
        "Packages": {name: lineage.packages[name] for name in DECISIVE_PACKAGES if name in lineage.packages},
    }


def _headline(trained: Trained) -> str:
    names = ("roc_auc", "pr_auc", "log_loss") if "test.roc_auc" in trained.metrics else ("rmse", "mae", "r2")
    return "test " + ", ".join(f"{name} {trained.metrics[f'test.{name}']:.4f}" for name in names)
