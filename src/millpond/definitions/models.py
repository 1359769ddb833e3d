"""Models: what is predicted, from what, how it is trained, and what it must show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from millpond.core.names import NAME_RULE, did_you_mean, is_name
from millpond.core.time import parse_boundary
from millpond.definitions.expressions import expression_text, is_expression, root_columns
from millpond.definitions.features import Entity, Features, RequestFeatures
from millpond.definitions.gates import Gate
from millpond.definitions.place import Place, Problem, caller
from millpond.definitions.release import Release
from millpond.definitions.tables import Table

Input = Features | RequestFeatures | str


@dataclass(frozen=True, eq=False)
class Task:
    """What is predicted. `label` is a column of the examples, or an expression over them; null labels are left out."""

    kind: ClassVar[str] = "task"
    label: Any

    @property
    def label_columns(self) -> tuple[str, ...]:
        return root_columns(self.label) if is_expression(self.label) else (str(self.label),)

    def describe(self) -> dict[str, Any]:
        label = expression_text(self.label) if is_expression(self.label) else self.label
        return {"task": self.kind, "label": label}


@dataclass(frozen=True, eq=False)
class Classification(Task):
    """A yes/no question. The label is boolean, or has exactly two values, the greater of which is the positive one.

    Args:
        threshold: Probability from which the answer is yes; None takes the one with the best F1 on validation.
    """

    kind: ClassVar[str] = "classification"
    threshold: float | None = None

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "threshold": self.threshold}


@dataclass(frozen=True, eq=False)
class Regression(Task):
    """A number. The label is numeric."""

    kind: ClassVar[str] = "regression"


@dataclass(frozen=True)
class Split:
    """Train before validation before test.

    Each boundary is a date ("2013-11-01", midnight UTC), an instant, or a fraction of the examples counted from the
    end of time. Training examples whose label became known after validation began are left out, and validation
    examples whose label became known after the test began. Examples without a time are split by a hash of the key.

    Args:
        validation: Where validation begins, or its share.
        test: Where the test begins, or its share.
        end: Examples from here on are left out; a date or an instant.
    """

    validation: str | float = 0.15
    test: str | float = 0.15
    end: str | None = None

    def describe(self) -> dict[str, Any]:
        return {"validation": self.validation, "test": self.test, "end": self.end}

    def problems(self, place: Place, subject: str) -> Iterator[Problem]:
        instants: list[datetime] = []
        for name, value in (("validation", self.validation), ("test", self.test), ("end", self.end)):
            if value is None:
                continue
            if isinstance(value, (int, float)):
                if not 0 < value < 1:
                    yield Problem(place, subject, f"split: {name}", f"is {value!r}", "a fraction is between 0 and 1")
                continue
            try:
                instants.append(parse_boundary(value))
            except ValueError as error:
                yield Problem(place, subject, f"split: {name}", str(error))
        if isinstance(self.validation, str) != isinstance(self.test, str):
            found = f"validation is {self.validation!r} and test is {self.test!r}"
            yield Problem(place, subject, "split", found, "give both as dates, or both as fractions")
        elif (
            not isinstance(self.validation, str) and not isinstance(self.test, str) and self.validation + self.test >= 1
        ):
            found = f"validation and test take {self.validation + self.test:g} of the examples"
            yield Problem(place, subject, "split", found, "leave some to train on")
        if instants != sorted(set(instants)):
            yield Problem(place, subject, "split", "boundaries are out of order", "validation < test < end")


@dataclass(frozen=True)
class Tune:
    """A search over the estimator's parameters, judged on the validation part.

    Args:
        trials: Number of parameter sets tried.
        timeout: Seconds after which no new trial is started. A search that it ends cannot be reproduced exactly.
        metric: A metric of the task; None takes ROC AUC, or RMSE.
        space: Parameter -> (low, high) or a list of choices; None takes the estimator's own space.
    """

    trials: int = 25
    timeout: float | None = None
    metric: str | None = None
    space: Mapping[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        space = {name: list(values) for name, values in self.space.items()} if self.space else None
        return {"trials": self.trials, "timeout": self.timeout, "metric": self.metric, "space": space}


@dataclass(frozen=True)
class PredictionLog:
    """What the prediction log keeps of a model's answers.

    A change holds for all versions of the model from the next `millpond deploy` of it, `millpond train` or
    `millpond up` on, within a second of that; the audit log has it. What was logged before stays as it is.

    What is not logged has no receipt, and is not in the measurement of skew. A column that is redacted is redacted
    where a request carries it and where the model takes it; features that are computed from it are not.

    Args:
        sample: Share of requests that are logged, chosen by a hash of the prediction id.
        redact: Columns of requests, and inputs of the model, whose values are never written down.
    """

    sample: float = 1.0
    redact: Sequence[str] = ()

    def problems(self, model: Model) -> Iterator[Problem]:
        def problem(where: str, found: str, hint: str = "") -> Problem:
            return Problem(model.declared_at, model.subject, f"log: {where}", found, hint)

        if isinstance(self.sample, bool) or not isinstance(self.sample, (int, float)) or not 0 < self.sample <= 1:
            yield problem("sample", f"is {self.sample!r}", "a share of requests greater than 0, and at most 1")
        if isinstance(self.redact, str):
            yield problem("redact", f"is {self.redact!r}", f"a list of columns: [{self.redact!r}]")
            return
        known = {*model.entity_keys, *model.columns, *(name for view in model.views for name in view.columns)}
        for name in self.redact:
            # What request features read and give is known when they run.
            if name not in known and name != model.time and not model.request_features:
                hint = did_you_mean(name, known, noun="columns of requests and inputs")
                yield problem("redact", f"names {name!r}, which is neither", hint)


@dataclass(frozen=True, eq=False)
class Model:
    """A model.

    Args:
        name: The model's name in the registry.
        task: `mp.Classification(...)` or `mp.Regression(...)`.
        examples: The table whose rows are the examples.
        inputs: Feature views, request features, and columns of the examples that a request will carry.
        at: Column of the examples with the instant of prediction; None takes the table's time.
        label_known: Column with the instant at which the label became known; None takes `at`.
        where: Row expression; examples for which it is not true are left out.
        estimator: "lightgbm", "linear", an import path such as "sklearn.ensemble.RandomForestClassifier", or a
            scikit-learn estimator or pipeline.
        params: Parameters of the estimator.
        slices: Columns of the examples by whose values the evaluation is broken down.
        seed: Seeds everything that is random.
        release: How a new version that passed its gates takes over; None promotes it at once.
        log: What the prediction log keeps of its answers; everything, where nothing is said.
    """

    name: str
    task: Task
    examples: Table
    inputs: Sequence[Input]
    at: str | None = None
    label_known: str | None = None
    where: Any = None
    estimator: Any = "lightgbm"
    params: Mapping[str, Any] = field(default_factory=dict)
    tune: Tune | None = None
    split: Split = field(default_factory=Split)
    slices: Sequence[str] = ()
    gates: Sequence[Gate] = ()
    seed: int = 0
    release: Release | None = None
    log: PredictionLog = field(default_factory=PredictionLog)
    description: str = ""
    owner: str = ""
    tags: Sequence[str] = ()
    declared_at: Place = field(default_factory=caller, repr=False)

    @property
    def time(self) -> str | None:
        """The column with the instant of prediction; None where examples have no time."""
        return self.at or self.examples.time

    @property
    def views(self) -> tuple[Features, ...]:
        return tuple(each for each in self.inputs if isinstance(each, Features))

    @property
    def request_features(self) -> tuple[RequestFeatures, ...]:
        return tuple(each for each in self.inputs if isinstance(each, RequestFeatures))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the examples that are inputs themselves."""
        return tuple(each for each in self.inputs if isinstance(each, str))

    @property
    def entities(self) -> tuple[Entity, ...]:
        return tuple({view.entity.name: view.entity for view in self.views}.values())

    @property
    def entity_keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for entity in self.entities for key in entity.keys))

    @property
    def subject(self) -> str:
        return f'Model "{self.name}"'

    def describe(self) -> dict[str, Any]:
        """What the model means, as plain data; a changed description means a version is out of date.

        How it is released is not in it: that is `release.describe()`, and nothing is trained for it.
        """
        estimator = self.estimator if isinstance(self.estimator, str) else repr(self.estimator)
        return {
            "model": self.name,
            **self.task.describe(),
            "examples": self.examples.name,
            "at": self.time,
            "label_known": self.label_known,
            "where": expression_text(self.where) if self.where is not None else None,
            "inputs": [each if isinstance(each, str) else each.describe() for each in self.inputs],
            "estimator": estimator,
            "params": {name: repr(value) for name, value in self.params.items()},
            "tune": self.tune.describe() if self.tune else None,
            "split": self.split.describe(),
            "slices": list(self.slices),
            "seed": self.seed,
        }

    def problems(self) -> Iterator[Problem]:
        def problem(where: str, found: str, hint: str = "") -> Problem:
            return Problem(self.declared_at, self.subject, where, found, hint)

        if not is_name(self.name):
            yield problem("name", f"is {self.name!r}", NAME_RULE)
        if not isinstance(self.examples, Table):
            yield problem("examples", f"is {self.examples!r}", "give an mp.Table")
            return
        if not isinstance(self.task, Task):
            yield problem("task", f"is {self.task!r}", "mp.Classification(label=...) or mp.Regression(label=...)")
            return
        if not self.inputs:
            yield problem("inputs", "there are none", "feature views, request features, or columns of the examples")
        yield from self._input_problems(problem)
        yield from self.split.problems(self.declared_at, self.subject)
        if self.where is not None and not is_expression(self.where):
            yield problem("where", f"is {self.where!r}", 'an expression such as mp.col("distance") > 0')
        if self.tune is not None and self.tune.trials < 1:
            yield problem("tune: trials", f"is {self.tune.trials}", "at least 1")
        for gate in self.gates:
            yield from gate.problems(self.subject, self.task.kind)
        if isinstance(self.release, Release):
            yield from self.release.problems(self.subject, self.task.kind)
        elif self.release is not None:
            yield problem("release", f"is {self.release!r}", "give an mp.Release(...), or None")
        if isinstance(self.log, PredictionLog):
            yield from self.log.problems(self)
        else:
            yield problem("log", f"is {self.log!r}", 'mp.PredictionLog(sample=0.1, redact=["name"])')

    def _input_problems(self, problem: Any) -> Iterator[Problem]:
        if self.time is None and any(view.event_time for view in self.views):
            yield problem("at", "is missing, but there are feature views with a time", "name the instant's column")
        seen: set[str] = set()
        for each in self.inputs:
            name = each if isinstance(each, str) else getattr(each, "name", None)
            if name is None or not isinstance(each, (Features, RequestFeatures, str)):
                yield problem("inputs", f"holds {each!r}", "mp.Features, @mp.request_features, or a column's name")
                continue
            if name in seen:
                yield problem("inputs", f"names {name!r} twice")
            seen.add(name)
        for leak in sorted(set(self.columns) & set(self.task.label_columns)):
            yield problem("inputs", f"holds {leak!r}, which the label is made of", "a label is not an input; remove it")
