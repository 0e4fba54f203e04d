"""What jobs make comes in order or as it is made, and never more than asked for is under way."""

from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.execution.stream import Job, stream


class Site:
    """Jobs of some sizes, which are made when all that are waited for were asked for; it notes what is under way."""

    def __init__(self, sizes, *, made_in=None):
        self.sizes, self.made_in = sizes, made_in
        self.asked = self.taken = 0
        self.under_way = []  # numbers and bytes of the jobs that were, each time that one was asked for
        self.together = []  # how many were asked for at once
        self.waiting = {}

    def stream(self, **options):
        return stream(range(len(self.sizes)), self.start, size_of=self.sizes.__getitem__, **options)

    def start(self, numbers):
        self.together.append(len(numbers))
        return [self.start_one(number) for number in numbers]

    def start_one(self, number):
        self.under_way.append((self.asked - self.taken, sum(self.sizes[self.taken : self.asked])))
        self.asked += 1
        future = Future()

        def begin():
            future.set_result(number)
            return future

        def when_made(made):
            self.waiting[number] = made
            if self.made_in is None:
                made()
            elif len(self.waiting) == len(self.made_in):
                for ready in self.made_in:
                    self.waiting[ready]()

        return Job(begin, when_made)


SIZES = st.lists(st.integers(0, 10), max_size=30)


@given(SIZES, st.integers(1, 4), st.integers(1, 8), st.integers(0, 20), st.booleans())
def test_all_come_in_order_within_the_bounds(sizes, width, most, in_flight_bytes, ramp_up):
    site, seen = Site(sizes), []
    for number in site.stream(
        width=lambda: width, max_in_flight=most, in_flight_bytes=in_flight_bytes, ramp_up=ramp_up
    ):
        seen.append(number)
        site.taken += 1
    assert seen == list(range(len(sizes)))
    for jobs, size in site.under_way:
        assert jobs < most
        assert jobs < width or size < in_flight_bytes


@given(SIZES, st.integers(1, 4), st.integers(1, 8), st.booleans())
def test_each_comes_once_where_order_does_not_matter(sizes, width, most, ramp_up):
    site, seen = Site(sizes), []
    for number in site.stream(
        width=lambda: width, max_in_flight=most, in_flight_bytes=5, ramp_up=ramp_up, ordered=False
    ):
        seen.append(number)
        site.taken += 1
    assert sorted(seen) == list(range(len(sizes)))
    assert all(jobs < most for jobs, _ in site.under_way)


def test_what_is_made_first_comes_first():
    site = Site([2**30] * 4, made_in=[2, 1, 3, 0])  # so large that only one is brought at a time
    numbers = site.stream(width=lambda: 4, max_in_flight=4, in_flight_bytes=0, ordered=False)
    assert list(numbers) == [2, 1, 3, 0]


def test_one_is_asked_for_first_and_then_twice_as_many():
    site = Site([1] * 20)
    numbers = site.stream(width=lambda: 2, max_in_flight=8, in_flight_bytes=100, ramp_up=True)
    asked = []
    for _ in numbers:
        asked.append(site.asked)
        site.taken += 1
    assert asked[:4] == [1, 3, 6, 11]


def test_more_are_under_way_as_more_can_be_done_at_once_and_fewer_as_fewer_can():
    site, widths = Site([1] * 60), iter([1, 1, 1, 8, 8, 8, 2, *[2] * 60])
    ahead = []
    for _ in site.stream(width=lambda: next(widths), in_flight_bytes=100):
        ahead.append(site.asked - site.taken)
        site.taken += 1
    assert ahead[:6] == [1, 2, 2, 8, 16, 15]
    assert set(ahead[20:-4]) == {3, 4}


def test_many_are_asked_for_at_once_as_soon_as_half_of_them_are_taken():
    site = Site([1] * 90)
    for number in site.stream(width=lambda: 10, in_flight_bytes=100):
        assert number == 0 or site.asked == 90 or site.asked - number > 10  # beside this one, one for each of the ten
        site.taken += 1
    assert site.together == [10, 11, *[10] * 6, 9]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_ends_it(ordered):
    def start(numbers):
        return map(start_one, numbers)

    def start_one(number):
        def begin():
            future = Future()
            if number == 2:
                future.set_exception(ValueError("the third"))
            else:
                future.set_result(number)
            return future

        return Job(begin, lambda made: made())

    numbers = stream(
        range(9), start, size_of=lambda _: 1, width=lambda: 2, max_in_flight=2, in_flight_bytes=0, ordered=ordered
    )
    seen = set()
    with pytest.raises(ValueError, match="the third"):
        seen.update(numbers)
    assert seen <= {0, 1, 3}
