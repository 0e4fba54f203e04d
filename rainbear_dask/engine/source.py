"""The IO sources that Polars calls in the place of an aggregation: their rows are groups."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.aggregation.answer import Answer, answers
from rainbear_dask.aggregation.cohorts import Cohort, cohorts, group_sets
from rainbear_dask.aggregation.known import KnownAnswer, known_answer
from rainbear_dask.aggregation.merging import Partial, merge_partials
from rainbear_dask.aggregation.partial import run_partial
from rainbear_dask.aggregation.question import Question
from rainbear_dask.aggregation.rows import Part, RowQuestion, merge_parts, run_rows
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.trees import MAX_UNMERGED, Bunch, bunched, run_bunches
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
    question : Question or RowQuestion
        The question.
    client : distributed.Client, optional
        The client that the caller asked for.
    limits : Limits, optional
        Bounds of the scan.
    """

    def __init__(
        self, question: Question | RowQuestion, client: "Client | None" = None, limits: Limits | None = None
    ) -> None:
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
        known = known_answer(self.question) if isinstance(self.question, Question) else None
        if known is not None:  # nothing is read, so no bound of chunks or bytes is exceeded
            return self._frames(self._from_statistics(known), with_columns, predicate, n_rows)
        check_limits(plan, Limits(self.limits.chunks, None, self.limits.bytes))
        # Not with the first frame: Polars takes that on a thread without the caller's Dask annotations.
        found = self._row_answers if isinstance(self.question, RowQuestion) else self._array_answers
        return self._frames(found(client_for(plan, self.client)), with_columns, predicate, n_rows)

    def plan(self, _columns: Sequence[str] | None, _predicate: pl.Expr | None, _n_rows: int | None) -> ReadPlan:
        """Return the plan of the rows that the question aggregates."""
        return self.question.plan

    def _from_statistics(self, known: KnownAnswer) -> Iterator[pl.DataFrame]:
        assert isinstance(self.question, Question)  # noqa: S101
        answer = Answer(self.question, ())
        answer.add(known.partial)
        yield answer.frame()

    def _row_answers(self, client: "Client | None") -> Iterator[pl.DataFrame]:
        question = self.question
        assert isinstance(question, RowQuestion)  # noqa: S101
        work: Work[Part] = Work(run_rows, Part.settled)
        bunches = bunched(question.tasks(), question.num_tasks)
        parts = run_bunches(bunches, client, work, merge_parts)
        one_a_task = question.sets is None and question.num_tasks <= MAX_UNMERGED
        return question.answers(shown(parts, question.plan, one_a_task=one_a_task))

    def _array_answers(self, client: "Client | None") -> Iterator[pl.DataFrame]:
        question = self.question
        assert isinstance(question, Question)  # noqa: S101
        work: Work[Partial] = Work(run_partial)
        owners = deque[Cohort]()

        def bunches() -> Iterator[Bunch]:
            for cohort in cohorts(question):
                for bunch in bunched(cohort.tasks, cohort.num_tasks):
                    owners.append(cohort)
                    yield bunch

        partials = run_bunches(bunches(), client, work, merge_partials)
        one_a_task = group_sets(question) is None and question.plan.counts.num_tasks <= MAX_UNMERGED
        partials = shown(partials, question.plan, one_a_task=one_a_task)

        def owned() -> Iterator[tuple[Cohort, Partial]]:
            with closing(partials):  # type: ignore[type-var]  # a generator
                for partial in partials:
                    yield owners.popleft(), partial

        return answers(question, owned())

    def _frames(
        self,
        answers: Iterator[pl.DataFrame],
        columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
    ) -> Iterator[pl.DataFrame]:
        height = 0
        with closing(answers):  # type: ignore[type-var]  # a generator
            for answer in answers:
                height += answer.height
                if self.limits.rows is not None and height > self.limits.rows:
                    raise PlanTooLargeError(
                        f"max_rows exceeded: the answer from {self.question.plan.table.spec.label} has {height} rows, "
                        f"limit is {self.limits.rows}. Group by fewer keys, or raise the limit."
                    )
                # a limit counts rows before the filter
                frame = answer if n_rows is None else answer.head(max(n_rows - height + answer.height, 0))
                if predicate is not None:
                    frame = frame.filter(predicate)
                yield frame if columns is None else frame.select(columns)
                if n_rows is not None and height >= n_rows:
                    return
