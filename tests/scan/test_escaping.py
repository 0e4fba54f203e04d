"""Names and texts of a store never reach a terminal, a log or HTML as they are, if they could command it or hide something."""

import ast
import json
import os
import pickle
import subprocess
import sys
import traceback
import unicodedata
import warnings
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import rainbear_dask
import rainbear_dask as rd
from rainbear_dask.cli.parser import main
from rainbear_dask.diagnostics.svg import draw_chunks, draw_report
from rainbear_dask.exceptions import RainbearError, StoreError
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.redaction import escaped, reason, safe_cause, warn
from tests.support.errors import caught

COMMAND = str(Path(sys.executable).with_name("rainbear-dask"))
ODD = {
    "escape": "\x1b]0;owned\x07\x1b[2J",
    "line": "\r\nrainbear-dask: all is well",
    "C1": "\x9b2J\x85",
    "delete": "\x7f\x08\x00",
    "direction": "\u202e\u2066\u061c",
    "separators": "\u2028\u2029",
    "zero width": "\u200b\u200d\ufeff\u2060\u00ad",
    "no characters": "\ufffe\uffff\U000e0041",
}
MARKUP = "<script>alert(1)<br>&\"'"  # without a slash, which no dimension's name may have
NAME = "v" + "".join(ODD.values()) + MARKUP


def assert_plain(*texts, lines=False):
    """No character of a text is one that commands or hides; some texts have lines."""
    for text in texts:
        for character in text.replace("\n", "") if lines else text:
            assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}, ascii(text)
        assert "\nrainbear-dask: all is well" not in text


def array(**changes):
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": "float64",
        "fill_value": 0,
        "dimension_names": [NAME],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
        "attributes": {"units": NAME},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    } | changes


def write(root, members, **attributes):
    consolidated = {"kind": "inline", "must_understand": False, "metadata": members}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes, "consolidated_metadata": consolidated}
    root.mkdir(parents=True, exist_ok=True)
    (root / "zarr.json").write_text(json.dumps(group))
    return str(root)


GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


@pytest.fixture
def store(tmp_path):
    """Names of arrays, groups, dimensions, types and codecs are odd, and so is that of the folder."""
    members = {
        "ok": array(),
        NAME.replace("/", ""): array(),
        "bad" + NAME.replace("/", ""): array(data_type=NAME),
        "codec": array(codecs=[{"name": NAME}]),
        "twice": array(shape=[4, 4], dimension_names=[NAME, NAME], chunk_grid=array()["chunk_grid"]),
        f"group{ODD['escape']}": GROUP,
        f"group{ODD['escape']}/in": array(dimension_names=["z"]),
    }
    return write(tmp_path / f"odd{ODD['escape']}{ODD['direction']}.zarr", members)


def warned(call):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value = call()
    return value, [str(one.message) for one in said]


# ---------------------------------------------------------------------- the function


@given(st.text(st.characters(codec=None)))
def test_an_escaped_text_is_printable_and_says_as_repr_does_what_was_there(text):
    actual = escaped(text)
    assert actual.isprintable()
    assert escaped(actual) == actual
    expected = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    assert actual == expected


@given(st.text(st.characters(codec=None)))
def test_what_is_drawn_is_well_formed_xml(text):
    report = ET.fromstring(draw_report(text, [(text, text)], draw_chunks(ChunkGrid((text,), (4,), (2,)), [])))  # noqa: S314
    assert report.find("b").text in {escaped(text), None}


@pytest.mark.parametrize("text", ["lat", "größe", "温度", "ветер", "😀", "a b", "\\x1b", "n°1", "'quoted'"])
def test_names_of_any_language_stay_as_they_are(text):
    assert escaped(text) == text


def test_every_character_that_no_one_sees_is_escaped():
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert escaped(chr(code)).isascii(), hex(code)


# ---------------------------------------------------------------------- the boundaries


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_no_message_of_an_error_can_forget_it(text):
    kinds, todo = [], [RainbearError]
    while todo:
        kinds.append(todo.pop())
        todo += kinds[-1].__subclasses__()
    for kind in kinds:
        error = kind(f"array {text} is odd")
        assert_plain(str(error), repr(error), str(pickle.loads(pickle.dumps(error))))
        assert "is odd" in str(error)


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_no_warning_can_forget_it(text):
    _, (said,) = warned(lambda: warn(f"array {text} is odd", UserWarning))
    assert_plain(said)


def test_all_warnings_are_given_in_one_place():
    for path in Path(rainbear_dask.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in {"warnings.warn", "warnings.warn_explicit"} or path.name == "redaction.py", path.name


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_what_another_library_says_is_escaped_and_is_no_cause_if_a_traceback_would_show_it(text):
    err = OSError(f"no {text} here")
    assert_plain(reason(err))
    if text != ODD["line"]:  # lines of others' errors are kept
        assert safe_cause(err, []) is None
        behind = OSError("clean")
        behind.__cause__ = err
        assert safe_cause(behind, []) is None
        noted = OSError("clean")
        noted.add_note(f"seen at {text}")
        assert safe_cause(noted, []) is None


# ---------------------------------------------------------------------- the whole


def test_what_is_shown_of_a_store_with_odd_names(store):
    plan, said = warned(lambda: rd.plan(store, pl.col("ok") > 0, variables=["ok"]))
    whole, more = warned(lambda: rd.scan_zarr(store, variables=["ok"]))
    assert said
    assert_plain(*said, *more, plan.table.spec.label, repr(plan.table.spec), repr(plan))
    assert_plain(str(plan.explain()), str(rd.explain(whole)), whole.explain().partition("\n")[0], lines=True)
    html = plan._repr_html_()
    assert_plain(html)
    ET.fromstring(html)  # noqa: S314  our own text
    assert "<script" not in html
    backend = rd.ZarrBackendSync.from_url(store)
    assert_plain(repr(backend), backend.root())


@pytest.mark.parametrize("name", ["none", NAME + "x"])
def test_errors_that_quote_names(store, name):
    calls = [
        lambda: rd.scan_zarr(store, variables=[name]),
        lambda: rd.plan(store, pl.col(name) > 0, variables=["ok"]),
        lambda: rd.plan(store, columns=[name], variables=["ok"]),
        lambda: rd.scan_zarr(store, group=name),
        lambda: rd.scan_zarr(f"{store}/{name}"),
        lambda: rd.scan_zarr(store),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in calls[:-1]:
            error = caught(RainbearError, call)
            assert_plain(str(error))
            assert_plain("".join(traceback.format_exception_only(error)), lines=True)


def test_a_chunk_that_cannot_be_read_is_named_escaped(tmp_path):
    name = "v" + ODD["escape"] + ODD["direction"]
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array(name, data=np.arange(8.0), chunks=(2,), dimension_names=["x"])
    (tmp_path / "s.zarr" / name / "c" / "1").write_bytes(b"not a chunk")
    error = caught(StoreError, rd.scan_zarr(str(tmp_path / "s.zarr")).collect, "\\x1b", "\\u202e")
    assert_plain(str(error))
    for line in traceback.format_exception(error):
        assert_plain(line, lines=True)


def test_documents_that_are_no_documents(tmp_path):
    (tmp_path / "zarr.json").write_bytes(
        b'{"zarr_format": "' + NAME.encode(errors="surrogatepass") + b'", "node_type": 3}'
    )
    assert_plain(str(caught(RainbearError, lambda: rd.scan_zarr(tmp_path))))
    (tmp_path / "zarr.json").write_bytes(b"\x1b[2J\x07")
    assert_plain(str(caught(RainbearError, lambda: rd.scan_zarr(tmp_path))))


def test_arrays_whose_names_hold_half_a_character_are_left_out(tmp_path, capsys):
    odd = {"half \ud800": array(dimension_names=["x"]), "dims": array(dimension_names=["half \udfff"])}
    path = write(tmp_path / "s.zarr", odd | {"ok": array(dimension_names=["x"])}, units="half \ud800")
    lf, said = warned(lambda: rd.scan_zarr(path))
    assert lf.collect_schema().names() == ["x", "ok"]
    assert len(said) == 2
    assert all("half" in one for one in said)
    assert_plain(*said)
    main(["info", path])
    assert_plain(*capsys.readouterr(), lines=True)


# ---------------------------------------------------------------------- the command line


def run(*arguments, **environment):
    done = subprocess.run(
        [COMMAND, *arguments], check=False, capture_output=True, timeout=120, env=os.environ | environment
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["info", "--variables", "ok"], 0),
        (["plan", "--variables", "ok"], 0),
        (["plan", "--variables", "ok", "--where", "none > 1"], 2),
        (["scan", "--variables", "ok", "--select", "zz"], 2),
        (["scan", "--variables", f"zz{ODD['escape']}"], 2),
        (["scan", "--group", f"zz{ODD['escape']}{ODD['line']}"], 3),
        (["scan", "--variables", "ok", "--output", "/none/\x1b[2J.csv"], 2),
        (["scan", "--variables", "ok", "--head", "\x1b[2J"], 2),
    ],
    ids=str,
)
def test_the_command_line_shows_names_escaped(store, words, expected):
    code, out, err = run(words[0], store, *words[1:])
    assert code == expected, err
    assert out or err
    assert_plain(out, err, lines=True)


def test_names_that_a_terminal_has_no_characters_for(tmp_path):
    xr.Dataset({"größe": ("温度", [1.0])}).to_zarr(tmp_path / "s.zarr", consolidated=False)
    code, out, err = run("info", str(tmp_path / "s.zarr"), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (code, err) == (0, "")
    assert "gr\\xf6\\xdfe" in out or "gr\\xf6" in out


def test_rows_in_a_file_have_their_texts_as_they_are(tmp_path):
    texts = [f"a{odd}" for odd in ODD.values()]
    data = xr.Dataset({"v": ("x", np.array(texts, dtype=object))})
    data.to_zarr(tmp_path / "s.zarr", consolidated=False, zarr_format=2)
    assert rd.scan_zarr(str(tmp_path / "s.zarr")).collect()["v"].to_list() == texts
    assert main(["scan", str(tmp_path / "s.zarr"), "--output", str(tmp_path / "r.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "r.parquet")["v"].to_list() == texts
