"""Few passes over a chunk: what is not needed is not done; the deviations of a mean stay exact."""

from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.aggregation import reduction
from rainbear_dask.aggregation.groups import BlockCodes, TaskGroups
from rainbear_dask.aggregation.reduction import reduce_values, reduce_weighted
from rainbear_dask.aggregation.terms import Values

GROUPS = TaskGroups((4, 3, 5), [BlockCodes((1,), *[np.arange(3, dtype=np.int32)] * 2)])
REDUCER = GROUPS.reducer((slice(0, 4), slice(0, 3), slice(0, 5)))


def chunk(nan=False):
    values = np.random.default_rng(0).standard_normal((4, 3, 5)).astype("f4") + 300
    if nan:
        values[1, 2, 3] = np.nan
    return values


def test_a_chunk_without_nan_is_not_searched_for_it():
    masked = Values(chunk(), None, nan_is_null=True)
    with mock.patch.object(Values, "settled", side_effect=AssertionError):
        found = reduce_values(REDUCER, masked, None, ("fsum", "missing", "min"))
        weighted = reduce_weighted(REDUCER, masked, np.ones((1, 3, 1)), None, ("fsum", "missing"))
    assert set(found) == {"fsum", "min"}
    np.testing.assert_allclose(found["fsum"], chunk().astype("f8").sum(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(weighted["fsum"], found["fsum"], rtol=1e-12)


def test_a_masked_value_is_found_in_the_sum():
    found = reduce_values(REDUCER, Values(chunk(nan=True), None, nan_is_null=True), None, ("fsum", "missing", "max"))
    assert found["missing"].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found["fsum"], np.nansum(chunk(nan=True).astype("f8"), axis=(0, 2)), rtol=1e-12)
    np.testing.assert_array_equal(found["max"], np.nanmax(chunk(nan=True), axis=(0, 2)))


def test_a_nan_that_is_a_value_stays():
    found = reduce_values(REDUCER, Values(chunk(nan=True)), None, ("fsum", "min"))
    assert np.isnan(found["fsum"]).tolist() == [False, False, True]
    np.testing.assert_array_equal(found["min"], np.nanmin(chunk(nan=True), axis=(0, 2)))


@pytest.mark.parametrize("block_cells", [1, 7, 2**15])
@pytest.mark.parametrize("masked", [False, True])
def test_deviations_are_exact_beside_a_large_mean_and_an_outlier(monkeypatch, block_cells, masked):
    monkeypatch.setattr(reduction, "_BLOCK_CELLS", block_cells)
    values = chunk().astype("f8") + 1e9
    values[0, 0, 0] = 1e30  # spoils no other group
    mask = np.random.default_rng(1).random(values.shape) < 0.7 if masked else None
    found = reduce_values(REDUCER, Values(values), mask, ("n", "fsum", "m2"))
    for group in (1, 2):
        kept = values[:, group] if mask is None else values[:, group][mask[:, group]]
        expected = pl.Series(kept.reshape(-1) - 1e9).var() * (kept.size - 1)
        assert found["m2"][group] == pytest.approx(expected, rel=1e-6)
        assert found["n"][group] == kept.size


@given(data=st.data())
def test_states_of_masked_values_are_those_of_the_values_left(data):
    dtype = data.draw(st.sampled_from(["f4", "f8", "i2", "u1", "i8", "?"]))
    values = (np.random.default_rng(3).random((4, 3, 5)) * 100 > 50).astype(dtype)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=60, max_size=60))).reshape(4, 3, 5)
    found = reduce_values(REDUCER, Values(values), mask, ("missing", "sum", "min", "max"))
    for group in range(3):
        kept = values[:, group][mask[:, group]]
        assert found["missing"][group] == 20 - kept.size
        assert found["sum"][group] == kept.sum()
        if kept.size:
            assert (found["min"][group], found["max"][group]) == (kept.min(), kept.max())
