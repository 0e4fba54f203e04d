"""In a real Jupyter kernel, whose event loop runs already: awaited at the top level, or called and waited for."""

import polars as pl
import pytest
from jupyter_client.manager import KernelManager

from tests.support.oracle import expected_frame
from tests.support.stores import write_field

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # what Jupyter does with its sockets is its own


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("notebook") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture(scope="module")
def north(path) -> int:
    """Rows with a latitude above 45."""
    return expected_frame(path).filter(pl.col("lat") > 45).height


@pytest.fixture(scope="module")
def run(path):
    """Runs a cell in a kernel: its value in the forms in which a notebook shows it."""
    manager = KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def run_cell(code):
        shown = {}

        def note(message):
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))
            if message["msg_type"] == "execute_result":
                shown.update(message["content"]["data"])

        client.execute_interactive(code, output_hook=note, timeout=120)
        return shown

    run_cell(f"import dask, distributed, polars as pl, rainbear_dask as rd; c = pl.col; path = {path!r}")
    run_cell("dask.config.set({'rainbear-dask.small-plan-bytes': 0})")
    yield run_cell
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_question_is_awaited_in_a_cell(run, north):
    assert run("(await rd.scan_zarr_async(path, c.lat > 45)).height") == {"text/plain": str(north)}
    run("backend = rd.ZarrBackend.from_url(path)")
    assert run("(await backend.scan_zarr_async(pl.len())).item()") == {"text/plain": str(48 * 12 * 20)}
    assert "coord_entries" in run("await backend.cache_stats()")["text/plain"]
    assert "<table" in run("await backend.scan_zarr_async(c.lat > 45)")["text/html"]


def test_a_question_is_called_in_a_cell(run, north):
    assert run("rd.scan_zarr(path).filter(c.lat > 45).collect().height") == {"text/plain": str(north)}
    assert run("rd.ZarrBackendSync.from_url(path).scan_zarr_sync(c.lat > 45).height") == {"text/plain": str(north)}
    assert "<svg" in run("rd.plan(path, c.lat > 45)")["text/html"]


def test_a_bar_in_a_notebook_without_widgets_is_text_and_no_warning(run, north):
    run("import io, warnings; warnings.simplefilter('error'); file = io.StringIO()")
    run("with rd.progress(): rows = rd.scan_zarr(path).filter(c.lat > 45).collect()")
    run("with rd.progress(file): rows = rd.scan_zarr(path).filter(c.lat > 45).collect()")
    run("warnings.simplefilter('default')")
    assert f"{north:,} rows, " in run("file.getvalue()")["text/plain"]


@pytest.mark.cluster
def test_on_a_cluster(run, cluster, north):
    question = "rd.scan_zarr_async(path, c.lat > 45)"
    run(f"client = distributed.Client({cluster.scheduler_address!r})")
    run("seen = distributed.get_task_stream(client); _ = seen.__enter__()")
    assert run(f"(await {question}).height") == {"text/plain": str(north)}
    assert run("rd.scan_zarr(path).filter(c.lat > 45).collect().height") == {"text/plain": str(north)}
    assert run("seen.__exit__(None, None, None); len(seen.data) > 0") == {"text/plain": "True"}
    run("client.close()")


@pytest.mark.cluster
def test_on_a_cluster_with_an_asynchronous_client(run, cluster, north):
    run(f"client = await distributed.Client({cluster.scheduler_address!r}, asynchronous=True)")
    assert run("(await rd.scan_zarr_async(path, c.lat > 45)).height") == {"text/plain": str(north)}
    prefixes = "await client.run_on_scheduler(lambda dask_scheduler: sorted(dask_scheduler.task_prefixes))"
    assert "scan-zarr-field" in run(prefixes)["text/plain"]
    run("await client.close()")
