"""A cache that is bounded, and that loads each value once, whoever asks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.cache import ByteLRU


def new_cache(max_bytes=10) -> ByteLRU:
    """Values are numbers, each as large as it says; the first part of a key is its owner."""
    return ByteLRU(lambda: max_bytes, sizeof=lambda _, value: value, owner=lambda key: key[0], overhead=0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 5), max_size=6)), max_size=20))
def test_values_are_right_and_the_bound_is_kept(asked):
    cache = new_cache()
    for owner, numbers in asked:
        loaded = []

        def load(keys, loaded=loaded):
            loaded += keys
            return [number for _, number in keys]

        keys = [(owner, number) for number in numbers]
        there = {key for key in keys if key in cache}
        assert cache.get_all(keys, load) == numbers
        assert sorted(loaded) == sorted(set(keys) - there)  # each once, all together
        assert sum(sum(cache.sizes(each).values()) for each in "ab") <= 10


def test_of_one_owner_no_more_are_kept_than_asked_for():
    cache = new_cache(100)
    cache.get_all([("b", 1)], lambda _: [1])
    cache.get_all([("a", n) for n in range(5)], lambda keys: [n for _, n in keys], most=2)
    assert list(cache.sizes("a")) == [("a", 3), ("a", 4)]
    assert list(cache.sizes("b")) == [("b", 1)]


def test_a_load_does_not_look_at_all_that_is_kept():
    looked = set()

    class Key(tuple):
        __slots__ = ()

        def __hash__(self):
            looked.add(self[1])
            return super().__hash__()

    cache = new_cache(1000)
    cache.get_all([Key(("a", n)) for n in range(1000)], lambda keys: [1] * len(keys))
    looked.clear()
    cache.get_all([Key(("b", -1))], lambda _: [1])  # which pushes out the oldest
    assert Key(("a", 0)) not in cache
    assert looked <= {-1, 0, 1}


def test_threads_that_ask_for_overlapping_values_load_each_once():
    cache, gate, loads = new_cache(100), threading.Barrier(2, timeout=30), []

    def load(keys):
        gate.wait()  # both threads are loading: neither waits for the other first
        loads.extend(keys)
        return [n for _, n in keys]

    with ThreadPoolExecutor(2) as pool:
        asked = [[("a", 1), ("a", 2)], [("a", 2), ("a", 1), ("a", 3)]]
        answers = pool.map(lambda keys: cache.get_all(keys, load), asked)
        assert list(answers) == [[1, 2], [2, 1, 3]]
    assert sorted(loads) == [("a", 1), ("a", 2), ("a", 3)]


def test_what_could_not_be_loaded_is_asked_for_again():
    cache = new_cache()

    def fail(keys):
        raise OSError(str(keys))

    with pytest.raises(OSError, match="1"):
        cache.get_all([("a", 1), ("a", 2)], fail)
    assert cache.get_all([("a", 2), ("a", 1)], lambda keys: [n for _, n in keys]) == [2, 1]
    assert cache.misses["a"] == 2  # counted since something is kept


def test_what_is_forgotten_while_it_is_loaded_is_not_kept():
    cache = new_cache()

    def load(keys):
        cache.forget("a")
        return [n for _, n in keys]

    assert cache.get_all([("a", 1)], load) == [1]
    assert cache.sizes("a") == {}
