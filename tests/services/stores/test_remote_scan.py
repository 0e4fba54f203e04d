"""The whole scan from S3, Google, Azure, over HTTP, and of Icechunk on S3 equals what xarray reads, as from a folder."""

import shutil
import uuid
import warnings
from contextlib import contextmanager

import icechunk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainbear_dask import scan_zarr
from tests.scan.test_differential import FOLDER, budgets, check_answer, draw_question, written
from tests.services.stores.servers import icechunk_storage
from tests.support.oracle import expected_frame
from tests.support.strategies import layouts, trees

pytestmark = [
    pytest.mark.stores,
    pytest.mark.filterwarnings("ignore::xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:array .* is left out:UserWarning"),
    pytest.mark.filterwarnings("ignore:The table of .* has .* rows:UserWarning"),
]
libraries = st.sampled_from([{}, {}, {"library": "fsspec"}])


@contextmanager
def served(services, started, data, kind):
    """A tree in a folder, and the address and options of its copy behind a service."""
    if kind == "icechunk":
        tree = data.draw(trees(), label="tree")
        layout = data.draw(layouts(tree, ["v3", "v3 sharded"], may_consolidate=False), label="layout")
        name = uuid.uuid4().hex
        repository = icechunk.Repository.create(icechunk_storage(services.direct, name))
        session = repository.writable_session("main")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layout.write(tree, session.store)
        session.commit("all")
        repository = icechunk.Repository.open(icechunk_storage(services.s3, name))
        store = repository.readonly_session("main").store
        yield store, store, {}
        return
    with written(data, places=[FOLDER]) as (_, _, folder):
        options = data.draw(libraries, label="library")
        if kind != "http":
            cloud = started(kind)
            yield folder, cloud.upload(folder), cloud.for_library(options.get("library"))
        else:
            name = services.publish(folder)
            yield folder, f"{services.web}/{name}", options
            shutil.rmtree(services.www / name)


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure", "http", "icechunk"])
@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_scan_answers_as_xarray_does(services, started, kind, where, request):
    client = request.getfixturevalue("client") if where == "cluster" else None

    @given(data=st.data())
    @settings(max_examples=25 if client is None else 10)
    def check(data):
        with served(services, started, data, kind) as (local, address, options), budgets(data):
            frame = expected_frame(local)
            check_answer(scan_zarr(address, storage_options=options, client=client), frame, draw_question(data, frame))

    check()
