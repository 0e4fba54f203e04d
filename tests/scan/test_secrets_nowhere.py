"""No text shows a secret, whatever a store was opened with, and even if a server repeats all that it was sent."""

import asyncio
import base64
import logging
import pickle
import re
import threading
import traceback
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import quote, unquote

import aiohttp
import cloudpickle
import fsspec
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from zarr.storage import FsspecStore, LocalStore

import rainbear_dask as rd
from rainbear_dask.cli.parser import main
from rainbear_dask.cluster import connect
from rainbear_dask.exceptions import RainbearError
from tests.support.errors import caught

pytestmark = pytest.mark.filterwarnings("ignore:fs .* was not created with")  # of zarr, about a mapper
c = pl.col
SECRET = "hunter2&se=cret/pl+anted"  # noqa: S105
WORD = quote(SECRET, safe="")  # as it stands in a URL
KEY = "AKIAPLANTEDPLANTED00"


def readings(text: str) -> list[str]:
    """What someone who looks for secrets reads in a text: also what is quoted, or encoded in it."""
    found = [text, unquote(text), text.replace("\\u0026", "&").replace("&amp;", "&")]
    for run in re.findall(r"[\w+/-]{8,}", text):
        for skipped in range(4):
            part = run[skipped:].replace("-", "+").replace("_", "/")
            found.append(base64.b64decode(part[: len(part) // 4 * 4]).decode("latin-1"))
        if re.fullmatch("(?:[0-9a-fA-F]{2})+", run):
            found.append(bytes.fromhex(run).decode("latin-1"))
    return found


def assert_hidden(*texts):
    for text in map(str, texts):
        for reading in readings(text):
            assert SECRET[:7] not in reading, text
            assert SECRET[-7:] not in reading, text
            assert KEY not in reading, text


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder "bucket" of a store ``s.zarr``; requests that ``refused`` matches are answered with all that was sent."""
    folder = tmp_path_factory.mktemp("secrets")
    data = xr.Dataset({"v": (("y", "x"), np.arange(24.0).reshape(4, 6)), "odd": ("x", np.ones(6, "c8"))})
    data.to_zarr(folder / "bucket" / "s.zarr", zarr_format=3, consolidated=False, encoding={"v": {"chunks": (2, 3)}})
    zarr.consolidate_metadata(folder / "bucket" / "s.zarr")
    state = SimpleNamespace(folder=folder, refused="^$", url="", host="")

    class Repeating(SimpleHTTPRequestHandler):
        """Serves files; or says in many forms what it was asked."""

        def do_GET(self):
            """Answer one request."""
            if not re.search(state.refused, self.path):
                self.path = self.path.partition("?")[0]
                return super().do_GET()
            sent = [self.path, *(f"{name}: {value}" for name, value in self.headers.items())]
            bare = [self.headers.get("Authorization", ""), self.headers.get("X-Api-Key", ""), unquote(self.path)]
            for header in list(bare):
                _, _, content = header.partition(" ")
                if header.startswith("Basic "):
                    bare.append(base64.b64decode(content).decode())
                bare += [content, header.encode().hex(), base64.urlsafe_b64encode(f"of {header}".encode()).decode()]
            body = " \n".join(["no such user", *bare, *sent]).encode()
            self.send_response(400, "Bad Request")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return None if self.command == "HEAD" else self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Repeating, directory=str(folder))) as http:
        state.host = f"127.0.0.1:{http.server_port}"
        state.url = f"http://{state.host}/bucket/s.zarr"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield state
        http.shutdown()


@pytest.fixture(autouse=True)
def willing(server, monkeypatch):
    server.refused = "^$"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


BEARER = {"Authorization": f"Bearer {SECRET}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"someone:{SECRET}".encode()).decode()}


def s3(server, **options):
    return {"endpoint_url": f"http://{server.host}", "client_kwargs": {"region_name": "us-east-1"}} | options


def s3_store(server):
    return rd.store.S3Store(
        "bucket",
        endpoint=f"http://{server.host}",
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=SECRET,
        client_options={"allow_http": True, "default_headers": {"X-Api-Key": SECRET}},
        retry_config={"max_retries": 0},
    )


def login():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return aiohttp.BasicAuth("someone", SECRET)


def with_user(server):
    return server.url.replace("http://", f"http://someone:{WORD}@")


def http_store(url, **options):
    return rd.store.HTTPStore.from_url(url, client_options={"allow_http": True, **options})


# by name: source and storage options
SOURCES = {
    "password in the URL": lambda s: (with_user(s), {}),
    "password in the URL, by fsspec": lambda s: (with_user(s), {"library": "fsspec"}),
    "header of a token": lambda s: (s.url, {"headers": BEARER}),
    "header of a password": lambda s: (s.url, {"headers": BASIC}),
    "header of a service": lambda s: (s.url, {"headers": {"X-Api-Key": SECRET}}),
    "header of the client": lambda s: (s.url, {"client_options": {"default_headers": BEARER}}),
    "cookie": lambda s: (s.url, {"headers": {"Cookie": f"lang=en; session={SECRET}"}}),
    "header, by fsspec": lambda s: (s.url, {"library": "fsspec", "client_kwargs": {"headers": BEARER}}),
    "login, by fsspec": lambda s: (
        s.url,
        {"library": "fsspec", "client_kwargs": {"auth": login()}},
    ),
    "keys of S3": lambda s: ("s3://bucket/s.zarr", s3(s, key=KEY, secret=SECRET)),
    "keys of S3, by fsspec": lambda s: ("s3://bucket/s.zarr", s3(s, key=KEY, secret=SECRET, library="fsspec")),
    "token of S3": lambda s: ("s3://bucket/s.zarr", s3(s, key=KEY, secret=SECRET, token=f"token {SECRET}")),
    "copies of what a password opens": lambda s: (f"simplecache::{with_user(s)}", {}),
    "copies of what a header opens": lambda s: (f"simplecache::{s.url}", {"http": {"headers": BEARER}}),
    "store of obstore": lambda s: (s3_store(s), None),
    "store of obstore, with a header": lambda s: (http_store(s.url, default_headers=BEARER), None),
    "store of obstore, with a password": lambda s: (http_store(with_user(s)), None),
    "store of fsspec": lambda s: (FsspecStore.from_url(s.url, {"headers": BEARER}, read_only=True), None),
    "store of fsspec, with a password": lambda s: (FsspecStore.from_url(with_user(s), read_only=True), None),
    "mapper": lambda s: (fsspec.get_mapper(s.url, headers=BEARER), None),
    "mapper of copies": lambda s: (fsspec.get_mapper(f"simplecache::{s.url}", http={"headers": BEARER}), None),
}
EVERY = pytest.mark.parametrize("kind", SOURCES)


def opening_id(server, kind):
    source, options = SOURCES[kind](server)
    known = {"prefix": "s.zarr"} if kind == "store of obstore" else {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lf = rd.scan_zarr(source, storage_options=options, **known)
        plan = rd.plan(source, c.y > 1, storage_options=options, **known)
    return lf, plan, [str(one.message) for one in said]


def told(err: BaseException) -> str:
    """A traceback as it is printed, but for the lines of this file, and what a worker would send."""
    text = "".join(traceback.format_exception(err))
    chain, one = [], err
    while one is not None:
        chain += [repr(one), str(pickle.dumps(one))]
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n".join([line for line in text.splitlines() if __file__ not in line] + chain)


@EVERY
def test_a_server_that_repeats_what_it_was_sent_when_a_store_is_opened(server, kind):
    source, options = SOURCES[kind](server)
    server.refused = "."
    known = {"prefix": "s.zarr"} if kind == "store of obstore" else {}
    assert_hidden(told(caught(RainbearError, lambda: rd.scan_zarr(source, storage_options=options, **known))))


@EVERY
def test_a_server_that_repeats_it_when_a_chunk_is_read(server, kind):
    lf, plan, _ = opening_id(server, kind)
    server.refused = "/c/"
    assert_hidden(told(caught(RainbearError, lf.collect)), told(caught(RainbearError, plan.collect)))


@EVERY
def test_what_is_shown_of_a_scan(server, kind, caplog, capsys):
    caplog.set_level(logging.DEBUG, "rainbear_dask")
    lf, plan, warned = opening_id(server, kind)
    assert warned  # of the array that is left out
    with rd.progress():
        assert lf.select(c.v.sum()).collect().item() == 276
    graph = plan.to_delayed()
    frame = rd.to_dask_dataframe(lf)
    refused = [
        caught(RainbearError, lambda: rd.scan_zarr(lf_source(server, kind), variables=["none"], **known(server, kind))),
        caught(RainbearError, lambda: plan.to_dask_dataframe(index="none")),
    ]
    assert_hidden(
        *warned,
        lf.explain(),
        lf.explain(optimized=False),
        lf.show_graph(raw_output=True, show=False),
        repr(lf),
        str(rd.explain(lf)),
        str(plan.explain()),
        plan._repr_html_(),
        repr(plan),
        repr(plan.table),
        repr(plan.table.spec),
        *(frame.key for frame in graph),
        cloudpickle.dumps([dict(frame.dask) for frame in graph]),
        repr(frame),
        frame._name,
        str(frame.expr.tree_repr()),
        *map(told, refused),
        caplog.text,
        *capsys.readouterr(),
    )


def lf_source(server, kind):
    return SOURCES[kind](server)[0]


def known(server, kind):
    options = {"storage_options": SOURCES[kind](server)[1]}
    return options | ({"prefix": "s.zarr"} if kind == "store of obstore" else {})


@EVERY
def test_what_is_shown_of_a_backend(server, kind):
    source, options = SOURCES[kind](server)
    backends = [rd.ZarrBackendSync.from_store(source, "s.zarr" if kind == "store of obstore" else None)]
    if options is not None:  # a backend has no options, so an address alone is its way
        backends[0].cached.opened._options = options
    (backend,) = backends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend.scan_zarr_sync(c.y > 1)
    shown = [
        repr(backend),
        backend.cache_stats(),
        backend.root(),
        backend.schema(),
        backend.selected_chunks_debug(c.y > 1),
    ]
    server.refused = "/c/"
    assert_hidden(*shown, told(caught(RainbearError, backend.scan_zarr_sync)))


def test_keys_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"session{SECRET}")
    options = {"endpoint_url": f"http://{server.host}", "region": "us-east-1"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lf = rd.scan_zarr("s3://bucket/s.zarr", storage_options=options)
    server.refused = "/c/"
    assert_hidden(told(caught(RainbearError, lf.collect)))


def test_a_signature_in_a_url(server):
    source = f"{server.url}?sig={WORD}&se=2030"
    server.refused = "."
    assert_hidden(told(caught(RainbearError, lambda: rd.scan_zarr(source))))
    assert_hidden(told(caught(RainbearError, lambda: rd.scan_zarr(f"{server.url}#{WORD}"))))


@pytest.mark.parametrize(
    "options",
    [
        {"library": "obstore", "secret_of_nobody": SECRET},
        {"library": SECRET},
        {"client_options": {"no_such": SECRET}},
        {"library": "fsspec", "client_options": {"default_headers": BEARER}},
    ],
    ids=str,
)
def test_options_that_are_refused(server, options):
    assert_hidden(told(caught(RainbearError, lambda: rd.scan_zarr(server.url, storage_options=options))))


class Telling(LocalStore):
    """A store whose errors, and whose name, tell all."""

    token = SECRET

    def __str__(self):
        return f"telling://me:{WORD}@host/x?sig={WORD}"

    async def get(self, *_, **__):
        """Fail, and say how."""
        raise OSError(f"refused\nAuthorization: Bearer {SECRET}") from ValueError(f"password={SECRET!r}")


def test_a_store_of_ones_own_that_tells(tmp_path):
    assert_hidden(told(caught(RainbearError, lambda: rd.scan_zarr(Telling(tmp_path)))))


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["password in the URL", "header of a token", "keys of S3", "store of obstore"])
def test_an_error_of_a_worker(server, kind, client):
    lf, plan, _ = opening_id(server, kind)
    server.refused = "/c/"
    assert_hidden(
        told(caught(RainbearError, lambda: plan.collect(client))),
        told(caught(RainbearError, lf.collect)),
        client.get_worker_logs(),
        client.get_scheduler_logs(),
    )


def test_an_awaited_scan(server):
    server.refused = "/c/"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_hidden(told(caught(RainbearError, lambda: asyncio.run(rd.scan_zarr_async(with_user(server), c.y > 1)))))


@pytest.mark.parametrize("scheme", ["tcp", "tls", "ws"])
def test_the_address_of_a_cluster(scheme):
    address = f"{scheme}://someone:{WORD}@127.0.0.1:1"
    assert_hidden(told(caught(RainbearError, lambda: connect(address, timeout="1s"))))


# ---------------------------------------------------------------------- the command line

COMMANDS = {
    "password in the URL": lambda s: ["info", with_user(s)],
    "rows of it": lambda s: ["scan", with_user(s)],
    "plan of it": lambda s: ["plan", with_user(s), "--where", "y > none"],
    "option": lambda s: ["scan", s.url, "--option", f"headers.X-Api-Key={SECRET}"],
    "option that is wrong": lambda s: ["scan", s.url, "--option", f"library={SECRET}"],
    "output": lambda s: ["scan", s.url, "--output", f"http://someone:{WORD}@{s.host}/rows.parquet"],
    "output without a format": lambda s: ["scan", s.url, "--output", f"http://someone:{WORD}@{s.host}/rows?sig={WORD}"],
    "output of a scheme that nobody knows": lambda s: ["scan", s.url, "--output", f"nothing://u:{WORD}@h/x.parquet"],
    "cluster": lambda s: ["scan", s.url, "--cluster", f"tcp://someone:{WORD}@127.0.0.1:1", "--wait", "1s"],
}


@pytest.mark.parametrize("refused", ["^$", "/c/|rows", "."])
@pytest.mark.parametrize("kind", COMMANDS)
def test_the_command_line(server, kind, refused, capsys, monkeypatch):
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    server.refused = refused
    main(COMMANDS[kind](server))
    assert_hidden(*capsys.readouterr())


@pytest.mark.parametrize(
    "words",
    [
        ["--option", SECRET.partition("=")[0]],
        [f"--optoin=key={SECRET}"],
        ["--password", SECRET],
        [f"http://someone:{WORD}@host/other.zarr"],
        ["--head", f"http://someone:{WORD}@host"],
    ],
    ids=str,
)
def test_a_command_line_that_is_not_understood(words, capsys):
    with pytest.raises(SystemExit):
        main(["scan", "x.zarr", *words])
    assert_hidden(*capsys.readouterr())
