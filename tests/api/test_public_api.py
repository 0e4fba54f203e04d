"""The public names, and what is written about each."""

import ast
import doctest
import inspect
import operator
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import obstore.store
import pytest
import xarray as xr
from numpydoc.validate import validate

import rainbear_dask

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
CHECKS = PYPROJECT["tool"]["numpydoc_validation"]["checks"]


def public_objects():
    """By full name: the functions and classes named in ``__all__``, and those of the modules and packages named there."""
    for name in rainbear_dask.__all__:
        value = getattr(rainbear_dask, name)
        if name == "__version__":
            continue
        if not inspect.ismodule(value):
            yield f"rainbear_dask.{name}", value
            continue
        for inner, member in vars(value).items():
            is_own_class = inspect.isclass(member) and member.__module__ == value.__name__
            is_handed_on = inspect.isfunction(member) and member.__module__.startswith(f"{value.__name__}.")
            if is_own_class or is_handed_on:
                yield f"{value.__name__}.{inner}", member


PUBLIC = dict(public_objects())
BACKENDS = ("ZarrBackend", "ZarrBackendSync", "IcechunkBackend")
EXAMPLES = [name for name, value in PUBLIC.items() if ">>>" in (value.__doc__ or "")]


def test_the_public_names():
    assert rainbear_dask.__all__ == [
        "BackendOptions",
        "Engine",
        "ExportReport",
        "IcechunkBackend",
        "Statistics",
        "TableKey",
        "ZarrBackend",
        "ZarrBackendSync",
        "__version__",
        "analyze",
        "collect",
        "configure_zarr_codecs",
        "exceptions",
        "explain",
        "geo",
        "open_sample",
        "plan",
        "print_extension_info",
        "progress",
        "read_zarr",
        "rewrite",
        "sample",
        "scan_zarr",
        "scan_zarr_async",
        "show_versions",
        "sql",
        "store",
        "tables",
        "to_dask_dataframe",
        "to_xarray",
        "write_icechunk",
        "write_parquet",
        "write_zarr",
        "zonal",
    ]


def test_the_stub_tells_the_names_and_where_they_are():
    stub = ast.parse(Path(rainbear_dask.__file__).with_suffix(".pyi").read_text())
    homes = {
        alias.name: alias.name if node.module == "rainbear_dask" else node.module.removeprefix("rainbear_dask.")
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (names,) = (ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert names == rainbear_dask.__all__ == list(rainbear_dask._HOMES)
    assert homes == rainbear_dask._HOMES
    assert set(names) <= set(dir(rainbear_dask))


def test_the_version_is_that_of_the_installed_package():
    assert rainbear_dask.__version__ == version("rainbear-dask")


SLOW = {
    "dask",
    "distributed",
    "fsspec",
    "icechunk",
    "numpy",
    "obstore",
    "pandas",
    "polars",
    "pyarrow",
    "xarray",
    "zarr",
}
CALL = "from rainbear_dask.cli.parser import main; main({})"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import rainbear_dask", set()),
        (CALL.format(["--help"]), set()),
        (CALL.format(["--version"]), set()),
        (CALL.format(["scan", "x.zarr", "--head", "many"]), set()),
        ("from rainbear_dask import *", {"dask", "fsspec", "numpy", "polars", "zarr"}),
    ],
)
def test_what_is_slow_to_import_is_imported_where_it_is_needed(code, expected):
    """Of it a process of few words imports none, and who reads without a cluster no `distributed`."""
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603  our own
    assert SLOW.intersection(done.stderr.splitlines()[-1].split()) == expected


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_says_what_it_has_to(name):
    checks = {"GL08", *CHECKS}
    if inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], Exception):
        checks -= {"PR01"}  # errors are caught, not made, by who reads this

    assert [(code, text) for code, text in validate(name)["errors"] if code in checks] == []


def test_each_name_has_an_example():
    """The classes of errors and warnings share the example of their base class."""
    assert [name for name in PUBLIC if name not in EXAMPLES and not name.startswith("rainbear_dask.exceptions.")] == []
    assert "rainbear_dask.exceptions.RainbearError" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    time = np.arange("2000-01", "2000-03", dtype="M8[D]").astype("M8[ns]")
    grid = {"time": time, "latitude": np.linspace(-80, 80, 17), "longitude": np.arange(0.0, 360, 30)}
    sst = np.zeros([len(labels) for labels in grid.values()], dtype="float32")
    xr.Dataset({"sst": (list(grid), sst)}, grid).to_zarr("sst.zarr", zarr_format=2)
    runner = doctest.DocTestRunner()
    module = sys.modules[PUBLIC[name].__module__]

    for example in doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, module, globs={}):
        runner.run(example)

    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0


QUESTION = "predicate=None, with_columns=None, max_chunks_to_read=None, n_rows=None, batch_size=None"
AWAITED = "predicate, max_concurrency=None, max_chunks_to_read=None"
SIGNATURES = {
    "scan_zarr_async": f"async (source, {AWAITED}, prefix=None)",
    "BackendOptions": "(*, coord_cache_max_entries=256, var_cache_max_entries=4096, assume_sorted=None)",
    "ZarrBackend.from_url": "(url, options=None)",
    "ZarrBackend.from_store": "(store, prefix=None, options=None)",
    "ZarrBackend.scan_zarr_async": f"async ({AWAITED})",
    "ZarrBackendSync.from_url": "(url, options=None)",
    "ZarrBackendSync.from_store": "(store, prefix=None, options=None)",
    "ZarrBackendSync.scan_zarr_sync": f"({QUESTION})",
    "ZarrBackendSync.scan_zarr_streaming_sync": f"({QUESTION})",
    "IcechunkBackend.from_filesystem": "async (path, branch=None, root=None, options=None, *, tag=None, snapshot_id=None)",
    "IcechunkBackend.from_session": "async (session, root=None, options=None)",
    "IcechunkBackend.scan_zarr_async": f"async ({AWAITED})",
    "IcechunkBackend.scan_zarr_streaming_sync": f"({QUESTION}, max_concurrency=None)",
    "configure_zarr_codecs": "(*, aliases=None)",
    "print_extension_info": "()",
    **{f"{kind}.schema": "(variables=None)" for kind in BACKENDS},
    **{f"{kind}.root": "()" for kind in BACKENDS},
    **{f"{kind}.selected_chunks_debug": "(expr)" for kind in BACKENDS},
    **{
        f"{kind}.{name}": "()" if kind == "ZarrBackendSync" else "async ()"
        for kind in BACKENDS
        for name in ("cache_stats", "clear_coord_cache", "clear_all_caches")
    },
}
"""As users of rainbear call them: names of arguments, their order and what they are by default, and what is awaited."""


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_call_is_that_of_rainbear(name):
    call = operator.attrgetter(name)(rainbear_dask)
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(call).parameters.values()]
    parameters = [p for p in parameters if p.name != "self"]
    said = "async " if inspect.iscoroutinefunction(call) else ""
    assert f"{said}{inspect.Signature(parameters)}" == SIGNATURES[name]


def test_backends_have_no_other_names():
    names = {f"{kind}.{name}" for kind in BACKENDS for name in dir(getattr(rainbear_dask, kind)) if name[0] != "_"}
    assert names <= SIGNATURES.keys()


def test_a_scan_takes_the_arguments_of_rainbear_and_more():
    parameters = inspect.signature(rainbear_dask.scan_zarr).parameters
    first, *rest = parameters.values()
    assert (first.name, first.kind) == ("source", first.POSITIONAL_OR_KEYWORD)
    assert all(p.kind == p.KEYWORD_ONLY for p in rest)
    assert {"variables", "group", "prefix", "storage_options", "client", "max_chunks_to_read"} <= parameters.keys()


def test_the_stores_are_those_of_obstore():
    names = ["LocalStore", "MemoryStore", "S3Store", "GCSStore", "AzureStore", "HTTPStore", "from_url"]
    assert {name: getattr(rainbear_dask.store, name) for name in names} == {
        name: getattr(obstore.store, name) for name in names
    }
    assert set(names) <= set(rainbear_dask.store.__all__)


def test_the_design_has_the_rows_of_packages_that_are_checked():
    """Which packages stand in one row, and in which order the rows are; within a row they stand in any."""
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    _, _, section = (Path(__file__).parents[2] / "docs" / "design.md").read_text().partition("\n## Packages\n")
    table = [line.split("|")[1] for line in section.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    actual = [set(re.findall("`([a-z_]+)`", row)) for row in table]
    assert actual == [set(layer.split(" | ")) for layer in layers]
