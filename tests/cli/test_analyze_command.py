"""The command `analyze`."""

import pytest
import zarr

from rainbear_dask.cli.parser import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_analyze_says_what_it_read(url, capsys):
    assert main(["analyze", url, "--variables", "t2m", "--place", "cache"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{url}: statistics of 24 chunks, 24 of them read now\n  t2m: 24 chunks, ")
    assert said.count("\n") == 2
    assert main(["plan", url, "--where", "t2m > 1000", "--select", "t2m"]) == 0
    assert "t2m keeps 0 of 24 chunks" in capsys.readouterr().out
    assert main(["analyze", url, "--variables", "t2m", "--place", "cache"]) == 0
    assert "24 chunks, 0 of them read now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--variables", "t2n"], 2, "Did you mean 't2m'"),
        (["--place", "https://example.org/a"], 2, "Nothing can be written to https://"),
        (["--group", "nowhere"], 3, "nowhere"),
    ],
)
def test_analyze_reports_mistakes_in_one_line(url, capsys, arguments, code, text):
    assert main(["analyze", url, *arguments]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said


def test_texts_of_a_store_are_escaped(tmp_path, capsys):
    path = str(tmp_path / "a.zarr")
    group = zarr.create_group(path, zarr_format=2)
    array = group.create_array("a", shape=(1,), dtype="U8", chunks=(1,), attributes={"_ARRAY_DIMENSIONS": ["x"]})
    array[:] = "\x1b[31mred"
    assert main(["analyze", path]) == 0
    assert "\x1b" not in capsys.readouterr().out
