"""A store is untrusted input: whatever its bytes are, only errors of ours come of it, and memory stays bounded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile import BYTES, COUNT, v3
from tests.support.hostile_layouts import STORES

ALLOWANCE = 64 * 2**20
# a store that is not in a folder is in memory before it is scanned
ELSEWHERE = [name for name in STORES if not re.search("zip|100 GB|sparse|^a (pipe|folder|loop|device|socket) ", name)]
SOME = [name for name in ELSEWHERE if name.startswith(("v3", "shard"))]
KINDS = {"folder": list(STORES), "obstore": ELSEWHERE, "memory": SOME, "fsspec": SOME}
# an array that is refused is left out of its table, with a warning
LEFT_OUT = re.compile(
    "with an index that gzip|an array's document|values of a megabyte|v2 shuffle: |v2 {|: as a (filter|compressor)"
)
# these say what may also be understood
HARMLESS = re.compile("vlen-bytes: not UTF-8|far apart")


def scanned(folder: Path, kind: str) -> dict[str, tuple[str, int]]:
    """Write stores and scan them in children: a child that ends is followed by another one, for the stores that are left."""
    roots = {}
    for number, name in enumerate(KINDS[kind]):
        root = folder / f"{kind}{number}"
        root.mkdir()
        STORES[name][1](root)
        roots[str(root)] = name
    v3(folder / "good", bytes(8 * COUNT), [BYTES])
    found: dict[str, tuple[str, int]] = {}
    while left := [root for root, name in roots.items() if name not in found]:
        child = subprocess.run(
            [sys.executable, "-m", "tests.support.hostile_child", kind, *left],
            capture_output=True, text=True, timeout=100, check=False,
            cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        good, *lines = [json.loads(line) for line in child.stdout.splitlines()]
        assert good[1] == f"rows: ({COUNT}, 2)"
        found |= {roots[root]: (outcome, peak) for root, outcome, peak in lines}
        if len(lines) < len(left):
            found[roots[left[len(lines)]]] = f"ENDED {child.returncode}: {child.stderr[-500:]}", 0
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of all stores, by kind of source and name; scanned when the first of a kind is asked for."""
    found = {}

    def outcome(kind, name):
        if kind not in found:
            found[kind] = scanned(tmp_path_factory.mktemp("hostile"), kind)
        return found[kind][name]

    return outcome


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_only_errors_of_ours_come_of_a_hostile_store_in_bounded_memory(outcomes, kind, name):
    outcome, peak = outcomes(kind, name)
    assert re.match("[A-Z][A-Za-z]+Error: |rows: ", outcome), outcome
    assert not outcome.startswith("rows: (0, 0)") or LEFT_OUT.search(name), outcome
    assert not outcome.startswith(f"rows: ({COUNT}, ") or HARMLESS.search(name), outcome
    assert peak <= 4 * STORES[name][0] + ALLOWANCE, f"{peak >> 20} MiB: {outcome}"


def test_the_chunk_at_fault_is_named(outcomes):
    outcome, _ = outcomes("folder", "v3 zstd: header of 2**50")
    assert outcome.startswith("ChunkReadError: Cannot read chunk (0,) (key 'v/c/0') of array 'v'")
