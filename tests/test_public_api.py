"""The public names, and what is written about each."""

import doctest
import inspect
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpydoc.validate import validate

import rainbear_dask

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
CHECKS = PYPROJECT["tool"]["numpydoc_validation"]["checks"]


def public_objects():
    """By full name: the functions and classes named in ``__all__``, and those of the modules named there."""
    for name in rainbear_dask.__all__:
        value = getattr(rainbear_dask, name)
        if not inspect.ismodule(value):
            yield f"rainbear_dask.{name}", value
            continue
        for inner, member in vars(value).items():
            if inspect.isclass(member) and member.__module__ == value.__name__:
                yield f"{value.__name__}.{inner}", member


PUBLIC = dict(public_objects())
EXAMPLES = [name for name, value in PUBLIC.items() if ">>>" in (value.__doc__ or "")]


def test_the_public_names():
    assert rainbear_dask.__all__ == [
        "BackendOptions",
        "IcechunkBackend",
        "ZarrBackend",
        "ZarrBackendSync",
        "configure_zarr_codecs",
        "exceptions",
        "explain",
        "plan",
        "print_extension_info",
        "progress",
        "scan_zarr",
        "scan_zarr_async",
        "store",
        "tables",
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_says_what_it_has_to(name):
    checks = {"GL08", *CHECKS}
    if inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], Exception):
        checks -= {"PR01"}  # errors are caught, not made, by who reads this

    assert [(code, text) for code, text in validate(name)["errors"] if code in checks] == []


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
