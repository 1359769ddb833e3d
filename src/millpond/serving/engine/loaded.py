"""A version in this process: its parts, and the way of rows through them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from millpond.core.errors import MillpondError, RequestError, Unavailable
from millpond.serving.engine.explaining import Explained, Explainer
from millpond.serving.engine.ports import AS_OF, Featured, InlineFeatures, Plan, Process
from millpond.serving.lanes.ports import Reply
from millpond.serving.ports import OUTPUT, Explanation, InferRequest, ServedModel
from millpond.serving.rows import Column, Rows

#: Given the inputs (None where they could not be made) and the outputs, or why there are none.
Scored = Callable[[Featured | None, Mapping[str, Column] | Exception], None]


class Loaded:
    """A version, ready to be asked or on its way there. Used in the thread of one event loop.

    Args:
        served: The version.
        plan: Its compiled plan; None where `native` answers.
        native: The process of its estimator; None where `plan` answers.
        features: Looks features up in this process; None where there are none, or only `featurizer` knows them.
        featurizer: The process that makes raw inputs of request rows; None where request rows are raw inputs.
        explainer: Makes the plan's explanations beside the loop; None where there are none.
    """

    def __init__(
        self,
        served: ServedModel,
        *,
        plan: Plan | None = None,
        native: Process | None = None,
        features: InlineFeatures | None = None,
        featurizer: Process | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        self.served = served
        self.plan = plan
        self.native = native
        self._features = features
        self.featurizer = featurizer
        self._explainer = explainer
        self._plain = served.outputs == (OUTPUT,)

    @cached_property
    def name(self) -> str:
        return f"version {self.served.version} of model {self.served.model!r}"

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The request columns that name entities."""
        return tuple(column.name for column in self.served.columns if column.role == "key")

    @cached_property
    def signature(self) -> object:
        """What requests for it look like; versions with equal ones read a request alike."""
        served = self.served
        return served.columns, tuple(served.inputs.items()), served.at, served.matrix, served.outputs, served.task

    def serving(self, served: ServedModel) -> Loaded:
        """The same version and parts, told otherwise, as what of its answers is logged."""
        other = copy(self)
        other.served = served
        return other

    def score(
        self,
        request: InferRequest,
        then: Scored,
        deadline: float | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Answer a request without logging. `then` is called once, before this returns where no process is needed."""
        if request.raw or (self._features is None and self.featurizer is None):
            moment = time.time_ns() // 1000 if request.as_of is None else request.as_of
            featured: Featured | None = Featured(request.rows, [moment] * request.rows.count, {}, {})
        else:
            featured = self._features.look_up(request.rows, request.as_of) if self._features is not None else None
        if featured is not None:
            self._run(featured, then, deadline, gone)
        else:
            self._featurize(request, then, deadline, gone)

    def explain(self, featured: Featured, then: Explained, deadline: float | None, gone: Callable[[], bool]) -> None:
        """Tell the contributions of the raw inputs, or why there are none; `then` is called once, mostly later.

        Errors given to `then`:
            RequestError: The version cannot tell them.
            Overloaded, DeadlineExceeded, Unavailable, MillpondError: As `Explainer.explain`.
        """
        if self.plan is None or self._explainer is None:
            then(
                RequestError(
                    f"{self.name} cannot explain its answers",
                    where=f"model {self.served.model!r}, parameters.explain",
                    hint="only compiled versions do; the version's page says why this one is not compiled",
                )
            )
            return

        def explained(found: Explanation | Exception) -> None:
            then(self._failed(found) if isinstance(found, Exception) else found)

        self._explainer.explain(self.plan, featured.inputs, explained, deadline=deadline, gone=gone)

    def _featurize(self, request: InferRequest, then: Scored, deadline: float | None, gone: Callable[[], bool]) -> None:
        if self.featurizer is None:
            then(None, Unavailable(f"the features of {self.name} cannot be looked up", where=self.name))
            return
        rows = request.rows
        asked = Rows(rows.count, (*rows.names, AS_OF), (*rows.columns.values(), [request.as_of] * rows.count))

        def made(reply: Reply | Exception) -> None:
            if isinstance(reply, Exception):
                then(None, reply)
                return
            self._run(self._featured(reply), then, deadline, gone)

        self.featurizer.submit(asked, made, deadline=deadline, gone=gone)

    def _featured(self, reply: Reply) -> Featured:
        found, meta = reply.rows.columns, reply.meta
        inputs = Rows(reply.rows.count, tuple(self.served.inputs), tuple(found[name] for name in self.served.inputs))
        as_of = [int(each) for each in found[AS_OF]]
        return Featured(inputs, as_of, meta["snapshots"], meta["events"], meta["synced_at"])

    def _run(self, featured: Featured, then: Scored, deadline: float | None, gone: Callable[[], bool]) -> None:
        if self.plan is None:
            self._run_native(featured, then, deadline, gone)
            return
        try:
            outputs = self.plan.predict(featured.inputs)
            self._check(outputs, featured.inputs.count)
        except Exception as error:
            then(featured, self._failed(error))
        else:
            then(featured, outputs)

    def _run_native(self, featured: Featured, then: Scored, deadline: float | None, gone: Callable[[], bool]) -> None:
        if self.native is None:
            then(featured, Unavailable(f"{self.name} has nothing that answers", where=self.name))
            return

        def answered(reply: Reply | Exception) -> None:
            if isinstance(reply, Exception):
                then(featured, reply)
                return
            outputs = reply.rows.columns
            try:
                self._check(outputs, featured.inputs.count)
            except MillpondError as error:
                then(featured, error)
                return
            then(featured, outputs)

        self.native.submit(featured.inputs, answered, deadline=deadline, gone=gone)

    def _failed(self, error: Exception) -> MillpondError:
        if isinstance(error, MillpondError):
            return error
        failed = MillpondError(
            f"{self.name} failed: {type(error).__name__}: {error}",
            where=self.name,
            hint="its inputs are in the request; retrain, or roll back to an earlier version",
        )
        failed.__cause__ = error
        return failed

    def _check(self, outputs: Mapping[str, Column], count: int) -> None:
        """Of a trained model, every output is a finite number."""
        if not self._plain:
            return
        found: Any = outputs.get("output")
        if found is None or len(found) != count:
            given = "no outputs" if found is None else f"{len(found)} answers"
            what = f"{self.name} gave {given} for {count} rows"
            raise MillpondError(what, where=self.name, hint="look at the estimator's predict method")
        if count == 1:
            if math.isfinite(found[0]):
                return
        else:
            import numpy as np

            if np.isfinite(found).all():
                return
        row = next(row for row, output in enumerate(found) if not math.isfinite(output))
        raise MillpondError(
            f"{self.name} answered {found[row]} in row {row}, which is no finite number",
            where=self.name,
            hint="look at the inputs of that row; retrain, or roll back to an earlier version",
        )


def thresholded(served: ServedModel, outputs: Mapping[str, Column]) -> Sequence[bool] | None:
    """`output >= threshold` a row; None where the task is not classification."""
    if served.threshold is None:
        return None
    threshold = served.threshold
    found = outputs["output"]
    values: Sequence[float] = found.tolist() if isinstance(found, np.ndarray) else found
    return [each >= threshold for each in values]
