"""Trees of merges: fixed by the number of tasks, in the order of the tasks."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.execution import trees
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.trees import ARITY, MAX_UNMERGED, bunched, folded, run_bunches
from rainbear_dask.planning.task import Scan
from rainbear_dask.storage.spec import StoreSpec

SCAN = Scan(StoreSpec("numbers", "/nowhere", "1"), (), ())


@dataclass(frozen=True)
class Numbered:
    """A task that is a number."""

    number: int
    frame_bytes: int = 3
    sent_bytes: int = 5
    scan: Scan = SCAN


def tupled(results):
    assert len(results) <= ARITY
    return tuple(results)


def leaves(tree):
    return [tree] if isinstance(tree, int) else [leaf for part in tree for leaf in leaves(part)]


@given(st.integers(1, 2000))
def test_a_tree_holds_all_results_in_order(count):
    assert leaves(folded(range(count), tupled)) == list(range(count))


@given(st.integers(0, 3000))
def test_few_tasks_are_alone_and_many_are_in_few_bunches(count):
    found = list(bunched(map(Numbered, range(count)), count))
    assert [task.number for bunch in found for task in bunch.tasks] == list(range(count))
    assert len(found) <= MAX_UNMERGED
    assert count > MAX_UNMERGED or len(found) == count
    assert all(bunch.frame_bytes == 3 * len(bunch.tasks) for bunch in found)
    assert sum(bunch.sent_bytes for bunch in found) == 5 * count


@pytest.mark.parametrize("count", [0, 1, 5, 29])
def test_threads_merge_in_the_same_tree(monkeypatch, count):
    monkeypatch.setattr(trees, "MAX_UNMERGED", 2)
    monkeypatch.setattr(trees, "ARITY", 3)
    work = Work(lambda task: task.number)
    found = list(run_bunches(bunched(map(Numbered, range(count)), count), None, work, tuple))
    bunches = bunched(range(count), count)
    assert found == [folded(list(bunch.tasks), tuple) for bunch in bunches]
    assert [leaf for tree in found for leaf in leaves(tree)] == list(range(count))
