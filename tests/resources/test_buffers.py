"""A borrowed buffer has one user until its last view is gone, and is reused afterwards."""

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.resources import buffers as memory
from rainbear_dask.resources.buffers import MIN_POOLED_BYTES, borrow_array


@pytest.fixture(autouse=True)
def _nothing_waits():
    memory.forget()
    yield
    memory.forget()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 7), (5,), (2, 3, 4), (70_000,), (3, 64, 1024)])
@pytest.mark.parametrize("dtype", ["?", "u1", "<f4", ">i8"])
def test_an_array_is_as_it_is_asked_for(shape, dtype):
    for _ in range(2):
        array = borrow_array(shape, dtype)
        assert (array.shape, array.dtype, array.flags.c_contiguous, array.flags.writeable) == (shape, dtype, True, True)
        array[...] = 1
        assert (array == 1).all()


def test_memory_is_lent_again_when_no_view_of_it_is_left():
    array = borrow_array((64, 1024), "f8")
    where = address(array)
    view = array[3:9].reshape(-1).view("u1")[::2]
    del array
    other = borrow_array((64, 1024), "f8")
    assert address(other) != where
    del view
    assert address(borrow_array((60, 1024), "f8")) == where
    del other


def test_what_a_buffer_is_made_of_is_not_lent_again():
    array = borrow_array((2 * MIN_POOLED_BYTES,), "u1")
    where, buffer = address(array), memoryview(array)[5:]
    del array
    assert address(borrow_array((2 * MIN_POOLED_BYTES,), "u1")) != where
    del buffer
    assert address(borrow_array((2 * MIN_POOLED_BYTES,), "u1")) == where


def test_much_more_memory_than_is_asked_for_is_not_lent():
    where = address(borrow_array((2 * MIN_POOLED_BYTES,), "u1"))
    small = borrow_array((MIN_POOLED_BYTES,), "u1")
    assert address(small) != where
    assert address(borrow_array((2 * MIN_POOLED_BYTES - 1000,), "u1")) == where


def test_small_arrays_are_left_to_the_heap():
    borrow_array((MIN_POOLED_BYTES - 1,), "u1")
    assert not memory._idle


def test_of_memory_that_waits_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(memory, "MAX_IDLE_BYTES", 5 * MIN_POOLED_BYTES)
    arrays = [borrow_array((n * MIN_POOLED_BYTES,), "u1") for n in (6, 2, 3, 1)]
    where = list(map(address, arrays))
    for waiting in ([], [1], [1, 2], [2, 3]):  # the first is too much by itself
        del arrays[0]
        assert [address(block) for block in memory._idle.values()] == [where[n] for n in waiting]


def test_few_pieces_wait():
    arrays = [borrow_array((MIN_POOLED_BYTES,), "u1") for _ in range(100)]
    where = list(map(address, arrays))
    while arrays:
        del arrays[0]
    assert [address(block) for block in memory._idle.values()] == where[-64:]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans()), max_size=40))
def test_what_is_written_stays(steps):
    """Of any arrays that are made, seen in part, and dropped in any order."""
    kept = {}
    for number, (place, size, in_part) in enumerate(steps):
        array = borrow_array((size * MIN_POOLED_BYTES // 2,), "u1")
        array[...] = number
        kept[place] = (array[7:-5] if in_part else array, number)
        del array
        for seen, written in kept.values():
            assert seen[0] == seen[-1] == written
            assert seen.min() == seen.max()


def test_threads_are_lent_memory_of_their_own():
    wrong = []

    def work(number):
        for turn in range(200):
            array = borrow_array((MIN_POOLED_BYTES + 64 * (turn % 7),), "u1")
            array[...] = number
            other = borrow_array((MIN_POOLED_BYTES,), "u1")
            other[...] = 100 + number
            if array.min() != number or array.max() != number:
                wrong.append(number)
            cycle = [array]
            cycle.append(cycle)  # which the garbage collector drops, whenever that is
            if turn % 50 == 0:
                gc.collect()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not wrong
    assert sum(map(len, memory._idle.values())) <= memory.MAX_IDLE_BYTES
