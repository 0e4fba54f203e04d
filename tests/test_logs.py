"""Loggers tell scans, openings, requests, retries and the cache, and no secret."""

import asyncio
import logging

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from zarr.storage import MemoryStore

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreError
from rainbear_dask.logs import logger
from rainbear_dask.storage import requests


@pytest.fixture
def url(tmp_path) -> str:
    data = xr.Dataset({"v": ("x", np.arange(4.0))}, {"x": np.arange(4.0)})
    data.to_zarr(tmp_path / "a.zarr", consolidated=False, encoding={"v": {"chunks": (2,)}})
    return str(tmp_path / "a.zarr")


def messages(caplog, name):
    return [record.getMessage() for record in caplog.records if record.name == f"rainbear_dask.{name}"]


def test_a_scan_tells_its_plan_and_where_it_runs(url, caplog):
    with caplog.at_level(logging.INFO, "rainbear_dask"):
        rd.scan_zarr(url).collect()
    (opened,) = messages(caplog, "storage")
    assert opened == f"opened {url} by LocalStore: 2 arrays"
    (scan,) = messages(caplog, "scan")
    assert scan == (
        f"scan of {url}: 2 of 2 chunks, 32 B, 4 rows at most, 1 tasks, "
        "on threads of this process, because no Dask client is active"
    )
    assert messages(caplog, "cache") == []


def test_a_scan_of_a_backend_is_told_once(url, caplog):
    for expr in (None, pl.col("x") > 0):
        caplog.clear()
        with caplog.at_level(logging.INFO, "rainbear_dask"), dask.config.set({"rainbear-dask.task-bytes": 1}):
            asyncio.run(rd.scan_zarr_async(url, expr))
        assert len(messages(caplog, "scan")) == 1


def test_debug_adds_what_the_cache_lacks(url, caplog):
    lf = rd.scan_zarr(url).filter(pl.col("x") > 1)
    with caplog.at_level(logging.DEBUG, "rainbear_dask"):
        lf.collect()
    assert messages(caplog, "cache") == [f"the cache lacks 1 of 1 pieces of {url}"]


class Failing(MemoryStore):
    """Answers the second time."""

    failed = False

    async def get(self, key, prototype=None, byte_range=None):
        if not self.failed:
            self.failed = True
            raise OSError("503 Slow Down, Authorization: Bearer abcdefgh12345678")
        return await super().get(key, prototype, byte_range)


def test_a_request_and_its_repetition_are_told_without_secrets(caplog, monkeypatch):
    monkeypatch.setattr(requests, "FIRST_WAIT_SECONDS", 0)
    with caplog.at_level(logging.DEBUG, "rainbear_dask"):
        assert asyncio.run(requests.get(Failing(), "a/zarr.json")) is None
    first, again = messages(caplog, "storage")
    assert first == "request a/zarr.json of Failing, whole"
    assert again.startswith("attempt 1 of 5 for a/zarr.json failed, and is repeated: OSError: 503 Slow Down")
    assert "abcdefgh" not in again


def test_no_record_holds_a_secret_or_a_control_character(caplog):
    with caplog.at_level(logging.INFO, "rainbear_dask"):
        logger("test").info("at %s", "https://someone:planted@host/a?sig=planted\x1b[2J")
    (said,) = messages(caplog, "test")
    assert said == "at https://host/a"


def test_nothing_is_told_unless_it_is_asked_for(url, capsys):
    rd.scan_zarr(url).collect()
    with pytest.raises(StoreError):
        rd.scan_zarr(f"{url}/nothing")
    assert capsys.readouterr() == ("", "")
