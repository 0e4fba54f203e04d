"""Completion scripts, run by the shell that they are for."""

import shutil
import subprocess
import sys

import pytest

from rainbear_dask.cli.parser import main

COMPLETE = """
source {script}
function=$(complete -p rainbear-dask | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=({words}) COMP_CWORD={last} COMPREPLY=()
$function rainbear-dask "${{COMP_WORDS[$COMP_CWORD]}}" "${{COMP_WORDS[$COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script for bash, as a process of its own prints it."""
    path = tmp_path_factory.mktemp("completion") / "bash.sh"
    command = [sys.executable, "-m", "rainbear_dask.cli", "--print-completion", "bash"]
    path.write_text(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rainbear-dask s", {"scan", "sql", "sample"}),
        ("rainbear-dask scan a.zarr --max-", {"--max-chunks", "--max-rows", "--max-bytes"}),
        ("rainbear-dask sql x --par", {"--param"}),
        ("rainbear-dask zonal --weights ", {"fraction", "area", "center"}),
        ("rainbear-dask info sst", {"sst.zarr"}),
    ],
)
def test_bash_completes(script, tmp_path, words, expected):
    (tmp_path / "sst.zarr").mkdir()
    given = [*words.split(), *([""] if words.endswith(" ") else [])]
    shown = " ".join(f"'{word}'" for word in given)
    text = COMPLETE.format(script=script, words=shown, last=len(given) - 1)
    bash = shutil.which("bash")
    done = subprocess.run([bash, "-c", text], check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert {line.rstrip("/") for line in done.stdout.splitlines()} == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_has_a_script(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert stop.value.code == 0
    assert "write-icechunk" in capsys.readouterr().out


def test_without_shtab_the_error_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", "bash"])
    assert stop.value.code == 1
    assert "pip install 'rainbear-dask[completion]'" in capsys.readouterr().err
