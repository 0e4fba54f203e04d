"""Damaged or malicious documents are read right, or refused by an error of ours; nothing else happens."""

import copy
import json
import random

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, StorePath

from rainbear_dask.chunks.read import read_regions
from rainbear_dask.exceptions import RainbearError
from rainbear_dask.metadata.opening import open_store

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # zarr's, about what the mutated documents hold

MUTANTS = 350  # of each kind of store
TOO_MANY_CELLS = 10**6  # to read; a missing chunk of a huge array is many fill values, and rightly so

ODD_VALUES = [
    None, True, 0, 1, -1, 2, 5, 10**30, 2**63, -(2**63), 1e308, float("nan"), "", "x", "NaN", "<f4", "|O", "<M8[ns]", ">i8",
    "float64", "int16", "string", "r16", "../..", "\x00", "é" * 500, [], [0], [1, 2, 3], [-1, 4], [10**30, 10**30], [None],
    [[2]], {}, {"id": "mystery"}, {"id": "pickle"}, {"name": "mystery"}, {"name": "sharding_indexed"}, {"configuration": 3},
    {"name": "bytes"}, {"name": "gzip", "configuration": {"level": 99}}, {"id": "zlib", "level": "high"}, {"a": {"b": [{}]}},
]  # fmt: skip
TEMPERATURE = np.arange(24, dtype="f4").reshape(4, 6) - 3.5
NUMBER = np.arange(4, dtype="i8") * 10**12


def write(path, zarr_format, *, consolidated):
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes={"title": "fuzz"})
    names = {"dimension_names": ["y", "x"]} if zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["y", "x"]}}
    shards = {"shards": (4, 6)} if zarr_format == 3 else {}
    root.create_array("t", data=TEMPERATURE, chunks=(2, 3), **names, **shards)
    root.create_array("n", data=NUMBER, chunks=(3,), compressors=None)
    root.create_group("below").create_array("t", data=TEMPERATURE, chunks=(4, 6), **names)
    if consolidated:
        zarr.consolidate_metadata(path, zarr_format=zarr_format)


def places(node, path=()):
    """The path of every value inside a JSON value."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutate(document, chance):
    """Change one to three values of a document: drop, replace, repeat, rename, or swap."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        found = list(places(document))
        if not found:
            break
        *above, key = chance.choice(found)
        holder = document
        for step in above:
            holder = holder[step]
        action = chance.choice(["drop", "replace", "replace", "replace", "repeat", "rename", "nest", "tweak"])
        if action == "drop":
            del holder[key]
        elif action == "replace":
            holder[key] = copy.deepcopy(chance.choice(ODD_VALUES))
        elif action == "repeat" and isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[key]))
        elif action == "rename" and isinstance(holder, dict):
            holder[chance.choice(["x", "", "/", "..", "t", "t/t", "below", "below/below", "zarr.json", "shape"])] = (
                holder.pop(key)
            )
        elif action == "nest":
            holder[key] = {"again": copy.deepcopy(document)}
        elif isinstance(holder[key], int):
            holder[key] += chance.choice([-1, 1, 2])
    return document


def text_of(document, chance):
    """The document as text, now and then cut short."""
    raw = json.dumps(document).encode()
    return raw[: chance.randrange(len(raw) + 1)] if chance.random() < 0.03 else raw


def zarrs_own(root, array):
    """What zarr itself reads from the array as it is described; None where it fails."""
    try:
        opening_id = zarr.Array(zarr.AsyncArray(json.loads(array.document), StorePath(LocalStore(root), array.path)))
        return np.asarray(opening_id[...])
    except Exception:  # noqa: BLE001  whatever it raises
        return None


def assert_sound(root):
    """Open and read what is there: true values, or an error of ours. Gives how many arrays were read, and refused."""
    try:
        meta = open_store(root)
    except RainbearError:
        return 0, 1
    read = refused = 0
    for array in meta.arrays.values():
        assert len(array.dims) == len(set(array.dims)) == len(array.shape) == len(array.chunks)
        assert min(array.chunks, default=1) > 0
        assert isinstance(array.attributes, dict)
        if np.prod(array.shape, dtype=float) > TOO_MANY_CELLS:
            continue
        try:
            (actual,) = read_regions(meta.spec, [(array, tuple((0, n) for n in array.shape))])
        except RainbearError:
            refused += 1
            continue
        read += 1
        assert (actual.shape, actual.dtype) == (array.shape, array.dtype)
        expected = zarrs_own(root, array)
        true = TEMPERATURE if array.name == "t" else NUMBER
        assert (expected is not None and np.array_equal(actual, expected, equal_nan=actual.dtype.kind in "fcmM")) or (
            np.array_equal(actual, true)
        ), (array, actual, expected)
    return read, refused + len(meta.skipped)


@pytest.mark.parametrize(
    ("zarr_format", "consolidated"), [(2, True), (2, False), (3, True), (3, False)], ids=["v2c", "v2", "v3c", "v3"]
)
def test_a_mutated_document_gives_true_values_or_an_error_of_ours(tmp_path, zarr_format, consolidated):
    write(tmp_path, zarr_format, consolidated=consolidated)
    chance = random.Random(f"{zarr_format} {consolidated}")
    files = [tmp_path / ("zarr.json" if zarr_format == 3 else ".zmetadata")] if consolidated else [
        file for file in sorted(tmp_path.rglob("*")) if file.name in ("zarr.json", ".zarray", ".zgroup", ".zattrs")
    ]  # fmt: skip
    originals = {file: file.read_bytes() for file in files}
    assert assert_sound(tmp_path) == (3, 0)
    read = refused = 0
    for _ in range(MUTANTS):
        file = chance.choice(files)
        file.write_bytes(text_of(mutate(json.loads(originals[file]), chance), chance))
        counts = assert_sound(tmp_path)
        read, refused = read + counts[0], refused + counts[1]
        file.write_bytes(originals[file])
    assert read > MUTANTS / 2  # neither everything is refused
    assert refused > MUTANTS / 10  # nor everything let in
