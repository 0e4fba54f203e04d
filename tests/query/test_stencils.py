"""`needed_labels`: SciPy and NumPy give the same values on the needed labels as on the whole axis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import interpolate

from rainbear_dask.query.stencils import needed_labels


def akima(method):
    return lambda x, y: interpolate.Akima1DInterpolator(x, y, method=method, extrapolate=True)


CURVES = {
    "linear": lambda x, y: interpolate.interp1d(x, y, fill_value="extrapolate"),
    "pchip": lambda x, y: interpolate.PchipInterpolator(x, y, extrapolate=True),
    "akima": akima("akima"),
    "makima": akima("makima"),
    "cubic": lambda x, y: interpolate.CubicSpline(x, y, bc_type="not-a-knot", extrapolate=True),
}


def nearest(labels, values, targets):
    """The lower one of two labels at the same distance."""
    return values[np.abs(targets[:, None] - labels).argmin(axis=1)]


def interpolated(method, labels, values, targets, *, extrapolate):
    if not extrapolate:
        targets = np.clip(targets, labels[0], labels[-1])
    if len(labels) == 1:
        return np.repeat(values, len(targets))
    if method == "nearest":
        return nearest(labels, values, targets)
    return CURVES[method](labels, values)(targets)


def window(labels, target, beside, *, extrapolate):
    """The labels around one target, by definition."""
    if target in labels:
        return {int(np.flatnonzero(labels == target)[0])}
    left = int(np.clip(np.sum(labels < target) - 1, 0, len(labels) - 2))
    if not extrapolate and not labels[0] < target < labels[-1]:
        return {0 if target < labels[0] else len(labels) - 1}
    return {at for at in range(left - beside, left + 2 + beside) if 0 <= at < len(labels)}


AXES = st.lists(st.integers(-60, 60), min_size=2, max_size=14, unique=True).map(
    lambda found: np.array(sorted(found)) / 2
)


@given(data=st.data())
def test_needed_labels_change_no_value(data):
    labels = data.draw(AXES)
    values = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=len(labels))
    targets = np.array(data.draw(st.lists(st.integers(-140, 140), min_size=1, max_size=6))) / 4
    method = data.draw(st.sampled_from(["nearest", *CURVES]))
    extrapolate = data.draw(st.booleans())
    needed = needed_labels(labels, targets, method, extrapolate=extrapolate)
    whole = interpolated(method, labels, values, targets, extrapolate=extrapolate)
    part = interpolated(method, labels[needed], values[needed], targets, extrapolate=extrapolate)
    np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9 * max(1, np.abs(whole).max()))
    if method not in {"nearest", "cubic"}:
        beside = {"linear": 0, "pchip": 1}.get(method, 2)
        exact = set().union(*(window(labels, target, beside, extrapolate=extrapolate) for target in targets))
        assert set(np.flatnonzero(needed)) == exact


@pytest.mark.parametrize(
    ("method", "targets", "extrapolate", "expected"),
    [
        ("linear", [3.0], False, [3]),  # on a label
        ("linear", [3.5], False, [3, 4]),
        ("linear", [-1.0], False, [0]),  # clamped
        ("linear", [-1.0], True, [0, 1]),
        ("linear", [99.0], True, [8, 9]),
        ("nearest", [3.4, 3.5, 3.6], False, [3, 4]),
        ("nearest", [3.5], False, [3]),  # of two labels, the lower one
        ("nearest", [99.0], True, [9]),
        ("pchip", [3.5], False, [2, 3, 4, 5]),
        ("akima", [3.5], False, [1, 2, 3, 4, 5, 6]),
        ("makima", [0.5], False, [0, 1, 2, 3]),
        ("cubic", [3.0, 99.0], False, [3, 9]),
        ("cubic", [3.0, 3.5], False, list(range(10))),
        ("linear", [np.nan], False, [0, 1]),
        ("nearest", [np.nan], False, [0, 1]),  # interpolars answers with the second label
        ("linear", [], False, [0]),
    ],
)
def test_forms(method, targets, extrapolate, expected):
    needed = needed_labels(np.arange(10.0), np.array(targets, float), method, extrapolate=extrapolate)
    assert np.flatnonzero(needed).tolist() == expected


def test_one_label():
    assert needed_labels(np.array([2.0]), np.array([5.0, np.nan]), "akima", extrapolate=True).tolist() == [True]
