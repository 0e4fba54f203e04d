"""Results that are ready come in one call, and each error reaches its own caller alone."""

import time
from pathlib import Path

import pytest
from distributed import wait

from rainbear_dask.execution import fetching
from rainbear_dask.execution.fetching import Fetcher

pytestmark = pytest.mark.cluster
NUM_RESULTS = 40


def reciprocal(number: int) -> float:
    return 1 / number


def wait_for(file: str) -> float:
    while not Path(file).exists():
        time.sleep(0.01)
    return 0.5


@pytest.fixture
def fetcher(client, monkeypatch):
    """A fetcher of one thread, which is the hardest case for results that wait for each other."""
    monkeypatch.setattr(fetching, "_NUM_THREADS", 1)
    released = []
    found = Fetcher(client, lambda value: 2 * value, released.append)
    found.released = released
    yield found
    found.close()


def test_results_that_are_ready_come_in_one_call(client, fetcher, tmp_path, monkeypatch):
    calls, plain = [], client.gather

    def gather(futures, **options):
        calls.append(len(futures))
        return plain(futures, **options)

    monkeypatch.setattr(client, "gather", gather)
    late = client.submit(wait_for, str(tmp_path / "go"), pure=False)
    ready = client.map(reciprocal, range(1, NUM_RESULTS + 1), pure=False)
    wait(ready)
    answers = [fetcher.fetch(future) for future in (late, *ready)]  # the one thread waits for the first result
    time.sleep(0.2)
    assert not answers[0].done()
    (tmp_path / "go").touch()
    assert [answer.result(30) for answer in answers] == [1, *(2 / number for number in range(1, NUM_RESULTS + 1))]
    assert sum(calls) == len(answers)
    assert len(calls) <= 4  # mostly two; the thread may begin before all are wanted
    assert set(fetcher.released) == {late, *ready}


def test_an_error_reaches_its_own_caller_alone(client, fetcher):
    futures = client.map(reciprocal, [1, 0, 2, 0, 4], pure=False)
    wait(futures)
    answers = [fetcher.fetch(future) for future in futures]
    assert [answers[i].result(30) for i in (0, 2, 4)] == [2, 1, 0.5]
    for failed in (1, 3):
        with pytest.raises(ZeroDivisionError):
            answers[failed].result(30)
    assert set(fetcher.released) == set(futures)


def test_an_answer_that_nobody_waits_for_does_no_harm(client, fetcher):
    futures = client.map(reciprocal, [1, 2], pure=False)
    wait(futures)
    answers = [fetcher.fetch(future) for future in futures]
    answers[0].cancel()
    assert answers[1].result(30) == 1
