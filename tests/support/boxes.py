"""Boxes of a small table, as one mask for each dimension."""

import numpy as np
from hypothesis import strategies as st

from rainbear_dask.indexing.index_set import IndexSet

SIZES = {"t": 9, "y": 7, "x": 8}
masks = {d: st.lists(st.booleans(), min_size=n, max_size=n).map(np.array) for d, n in SIZES.items()}
boxes = st.lists(st.fixed_dictionaries({}, optional=masks), max_size=4)


def index_sets(box) -> dict[str, IndexSet]:
    """Return a box of masks as a box of index sets."""
    return {d: IndexSet.from_mask(mask) for d, mask in box.items()}


def wanted(box) -> np.ndarray:
    """Return the mask of the cells of a box."""
    whole = np.ones(tuple(SIZES.values()), dtype=bool)
    for axis, (dim, n) in enumerate(SIZES.items()):
        shape = [1] * len(SIZES)
        shape[axis] = n
        whole &= np.asarray(box.get(dim, np.ones(n, dtype=bool))).reshape(shape)
    return whole
