"""The IO source whose rows are groups: what Polars calls in the place of an aggregation."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.aggregation.answer import Answer, Numbers
from rainbear_dask.aggregation.known import known_answer
from rainbear_dask.aggregation.partial import Partial, PartialTask, run_partial
from rainbear_dask.aggregation.question import Question
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.pushdown import recorder_of

if TYPE_CHECKING:
    from distributed import Client


class AnswerReader:
    """A source for ``polars.io.plugins.register_io_source`` that answers a question.

    It pickles without its client. In another process it uses the client that is active there.

    Parameters
    ----------
    question : Question
        The question.
    client : distributed.Client, optional
        The client that the caller asked for.
    limits : Limits, optional
        Bounds of the scan.
    """

    def __init__(self, question: Question, client: "Client | None" = None, limits: Limits | None = None) -> None:
        self.question, self.client, self.limits = question, client, limits or Limits()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return recorder_of(self) or (AnswerReader, (self.question, None, self.limits))

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # the answer is small
    ) -> Iterator[pl.DataFrame]:
        plan = self.question.plan
        known = known_answer(self.question)
        if known is not None:  # nothing is read, so no bound of chunks or bytes is exceeded
            return self._frames([((known.task, ()), known.partial)], with_columns, predicate, n_rows)
        check_limits(plan, Limits(self.limits.chunks, None, self.limits.bytes))
        tasks = _Tasks(self.question)
        # Not with the first frame: Polars takes that on a thread without the caller's Dask annotations.
        work: Work[Partial] = Work(run_partial)
        partials = shown(run_tasks(tasks, client_for(plan, self.client), work), plan)
        return self._frames(tasks.paired(partials), with_columns, predicate, n_rows)

    def plan(self, _columns: Sequence[str] | None, _predicate: pl.Expr | None, _n_rows: int | None) -> ReadPlan:
        """Return the plan of the rows that the question aggregates."""
        return self.question.plan

    def _frames(
        self,
        partials: Iterable[tuple[tuple[PartialTask, Numbers], Partial]],
        columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
    ) -> Iterator[pl.DataFrame]:
        answer = Answer(self.question)
        for (task, groups), partial in partials:
            answer.add(task, groups, partial)
        frame = answer.frame()
        if self.limits.rows is not None and frame.height > self.limits.rows:
            raise PlanTooLargeError(
                f"max_rows exceeded: the answer from {self.question.plan.table.spec.label} has {frame.height} rows, "
                f"limit is {self.limits.rows}. Group by fewer keys, or raise the limit."
            )
        if n_rows is not None:
            frame = frame.head(n_rows)  # a limit counts rows before the filter
        if predicate is not None:
            frame = frame.filter(predicate)
        yield frame if columns is None else frame.select(columns)


class _Tasks:
    """The tasks of a question; ``submitted`` holds the ones without a partial yet, in order."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self.submitted: deque[tuple[PartialTask, Numbers]] = deque()

    def __iter__(self) -> Iterator[PartialTask]:
        for task, groups in self._question.tasks():
            self.submitted.append((task, groups))
            yield task

    def paired(self, partials: Iterator[Partial]) -> Iterator[tuple[tuple[PartialTask, Numbers], Partial]]:
        """Yield each partial with its task and the numbers of its groups; partials come in the order of tasks."""
        with closing(partials):  # type: ignore[type-var]  # a generator
            for partial in partials:
                yield self.submitted.popleft(), partial
