"""The command that runs an SQL statement."""

import re

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.cli.parser import main


def test_the_rows_are_those_of_the_function(url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"lat": [82.5, -82.5], "name": ["north", "south"]}).write_csv("places.csv")
    statement = f"SELECT s.name, AVG(e.t2m) AS mean FROM '{url}' e JOIN 'places.csv' s USING (lat) WHERE e.t2m > :low "
    statement += "AND s.name = :name AND e.time >= :start AND :no IS NULL GROUP BY s.name"
    params = {"low": 275.5, "name": "north", "start": "2020-02-01", "no": None}
    given = [
        word for name, value in params.items() for word in ("--param", f"{name}={'null' if value is None else value}")
    ]
    assert main(["sql", statement, *given, "--output", "out.parquet"]) == 0
    assert_frame_equal(pl.read_parquet("out.parquet"), rd.sql(statement, params=params).collect())
    err = capsys.readouterr().err
    assert re.fullmatch(r"rainbear-dask: wrote 1 rows to out.parquet \(\S+ k?B\) in \S+ s\n", err)
    assert main(["sql", f"SELECT lat, lon FROM '{url}'", "--head", "2"]) == 0
    assert capsys.readouterr().out == "lat,lon\n82.5,0.0\n82.5,18.0\n"


def test_explain_is_text(url, capsys):
    assert main(["sql", f"EXPLAIN SELECT * FROM '{url}' WHERE lat > 80"]) == 0
    assert capsys.readouterr().out == f"{rd.explain(rd.scan_zarr(url).filter(pl.col('lat') > 80))}\n"


def test_limits_and_options_are_for_the_stores(url, capsys):
    assert main(["sql", f"SELECT t2m FROM '{url}'", "--max-chunks", "5"]) == 4
    assert "max_chunks_to_read exceeded" in capsys.readouterr().err
    assert main(["sql", "SELECT * FROM 's3://bucket/a.zarr'", "--option", "annon=true"]) == 2
    assert "Did you mean 'anon'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["SELECT * FORM '{url}'"], 2, "Line: 1, Column: 10"),
        (["SELECT * FROM nowhere"], 2, "There is no table 'nowhere'"),
        (["SELECT * FROM variable"], 2, "There is no table 'variable'"),
        (["SELECT * FROM 'nowhere.zarr'"], 3, "nowhere.zarr"),
        (["SELECT :x FROM '{url}'", "--param", "y=1"], 2, "The parameter :x has no value"),
        (["SELECT * FROM '{url}'", "--output", "rows.txt"], 2, "names no format"),
    ],
)
def test_errors_are_one_line(url, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    variable = pl.DataFrame({"a": [1]})
    assert main(["sql", *(each.format(url=url) for each in arguments)]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert variable.height == 1  # tables of Python are none of the command


def test_secrets_of_addresses_are_not_shown(capsys):
    statement = "SELECT * FROM 'http://user:hidden-word@127.0.0.1:9/a.zarr'"
    assert main(["sql", statement, "--option", "retries=0"]) != 0
    assert "hidden-word" not in capsys.readouterr().err
