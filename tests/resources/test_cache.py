"""A cache is bounded, and loads each value once for all its callers."""

import gc
import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.chunks import cache as values_cache
from rainbear_dask.coding.cf import Decoding
from rainbear_dask.metadata import zarr_arrays as documents
from rainbear_dask.resources import cache as caches
from rainbear_dask.resources import openings
from rainbear_dask.resources.buffers import borrow_array
from rainbear_dask.resources.cache import ByteLRU, bytes_of_array, remembered
from rainbear_dask.resources.openings import arrived_opening, new_opening, opening, when_gone


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
    cache.get_all([("a", n) for n in range(5)], lambda keys: [n for _, n in keys], max_owned=2)
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


# ---------------------------------------------------------------------- what is counted


def traced(make) -> tuple[int, object]:
    """Bytes that stay allocated by what a call makes, and the call's value."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size, made


def small_pieces(count):
    return [values_cache._Key(f"opening-{n}", "shared", f"array/{n}", ((n, n + 1),)) for n in range(count)]


def small_columns(count):
    number = np.dtype("f8")
    return [
        values_cache._Key(f"opening-{n}", "decoded", repr(Decoding(f"array/{n}", pl.Float64(), number, number)), ())
        for n in range(count)
    ]


@pytest.mark.parametrize("make", [small_pieces, small_columns])
def test_small_entries_are_counted_with_all_that_they_cost(make):
    """Each belongs to an opening of its own, and its value is a number."""
    kept = ByteLRU(lambda: 2**30, values_cache._sizeof, lambda key: (key.opening_id, key.kind))

    def fill():
        for key in make(2000):
            value = np.arange(1.0) if key.kind == "shared" else pl.Series([1.0])
            kept.get_all([key], lambda _, value=value: [value])

    size, _ = traced(fill)

    assert size <= kept.bytes <= 4 * size


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(100_000),
        np.zeros((100, 1000))[:, :10],  # keeps all of the buffer
        np.array([f"name {n}" * 5 for n in range(5000)], dtype=object),
        np.array([f"name {n}" * 5 for n in range(5000)], dtype=np.dtypes.StringDType()),
    ],
    ids=["numbers", "a part", "objects", "texts"],
)
def test_an_array_is_counted_with_its_buffer_and_its_texts(values):
    if values.dtype == object:
        size, _ = traced(lambda: np.array([f"name {n}" * 5 for n in range(5000)], dtype=object))
    elif values.dtype.kind == "T":
        size = sum(len(text) for text in values) + values.nbytes
    else:
        size = 800_000
    assert 0.9 * size <= bytes_of_array(values) <= 5 * size


def test_memory_that_is_lent_is_counted_as_it_was_taken():
    lent = borrow_array([2**18 + 1], np.uint8)
    assert bytes_of_array(lent) == bytes_of_array(lent[:5]) > lent.nbytes


@pytest.mark.parametrize("count", [0, 20, 400])
def test_a_document_is_counted_with_what_is_made_of_it(count):
    attributes = ",".join(f'"name{n}": {{"values": [1, 2.5, "{n}"]}}' for n in range(count))
    texts = [
        f'{{"zarr_format": 3, "node_type": "array", "shape": [{n}], "data_type": "float64", "fill_value": 0, '
        '"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}}, '
        '"chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], '
        f'"attributes": {{{attributes}}}}}'
        for n in range(20)
    ]
    documents.array_metadata(texts[0] + " ")  # what zarr imports is not of the first document
    size, _ = traced(lambda: [documents.array_metadata(text) for text in texts])

    assert size <= sum(map(documents.document_bytes, texts)) <= 12 * size


def test_a_function_keeps_as_many_answers_as_fit():
    asked = []

    @remembered(10 * (caches.ENTRY_BYTES + 1), lambda arguments, answer: 1)
    def double(number):
        asked.append(number)
        return 2 * number

    assert [double(n) for n in (*range(20), 19, 0)] == [2 * n for n in (*range(20), 19, 0)]
    assert asked == [*range(20), 0]
    double.cache_clear()
    assert double.answers.bytes == 0


# ---------------------------------------------------------------------- openings


def test_an_opening_is_one_object_in_a_process():
    first = new_opening()
    assert opening(first.name) is first
    assert pickle.loads(pickle.dumps(first)) is None  # who only passes it on does not keep it
    assert new_opening().name != first.name


def test_what_belongs_to_an_opening_goes_with_it():
    kept, other = new_cache(100), new_opening()
    when_gone(kept.forget_soon)
    first = new_opening()
    for one in (first, other):
        kept.get_all([(one.name, 1)], lambda _: [1])
    name = first.name
    del first, one
    gc.collect()
    assert not kept.sizes(name)
    assert kept.sizes(other.name)


def test_openings_that_arrive_stay_until_others_have_come(monkeypatch):
    monkeypatch.setattr(openings, "MAX_ARRIVED", 3)
    monkeypatch.setattr(openings, "_arrived", openings.OrderedDict())
    gone, names = [], [f"arrived-{n}" for n in range(5)]
    when_gone(gone.append)
    for name in names:
        arrived_opening(name)
    gc.collect()
    assert [name for name in gone if name in names] == names[:2]


def test_a_finalizer_waits_for_no_lock():
    """It may run on the thread that has it, in the middle of a question."""
    kept = new_cache(100)
    kept.get_all([("a", 1), ("b", 1)][:1], lambda _: [1])
    with kept._lock:
        kept.forget_soon("a")
    assert kept.sizes("a") == {}  # dropped by the next question, at the latest


def test_threads_that_drop_and_ask_leave_nothing_that_is_not_counted():
    kept = new_cache(50)

    def work(seed):
        for n in range(400):
            owner = "abcd"[(seed + n) % 4]
            assert kept.get_all([(owner, n % 7), (owner, 3)], lambda keys: [k for _, k in keys]) == [n % 7, 3]
            if n % 5 == 0:
                kept.forget_soon("abcd"[n % 4])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert kept.bytes == sum(sum(kept.sizes(owner).values()) for owner in "abcd")
    for owner in "abcd":
        kept.forget(owner)
    assert (kept.bytes, kept.hits, kept.misses) == (0, {}, {})
