"""What --output names: a file is replaced whole, with its permissions; all else is written into, or refused, and never replaced."""

import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from rainbear_dask.cli.outputs import check_output
from rainbear_dask.cli.parser import main

COMMAND = str(Path(sys.executable).with_name("rainbear-dask"))
CSV = b"x,v\n0,0.0\n1,1.0\n2,2.0\n3,3.0\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("outputs") / "s.zarr")
    xr.Dataset({"v": ("x", np.arange(4.0))}).to_zarr(path, consolidated=False)
    return path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> str:
    """A store whose last chunk does not decode."""
    path = tmp_path_factory.mktemp("outputs") / "damaged.zarr"
    xr.Dataset({"v": ("x", np.arange(40.0))}).to_zarr(path, consolidated=False, encoding={"v": {"chunks": (10,)}})
    (path / "v" / "c" / "3").write_bytes(b"not a chunk")
    return str(path)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> str:
    """A store that takes some seconds to write."""
    path = str(tmp_path_factory.mktemp("outputs") / "long.zarr")
    data = xr.Dataset({"v": (("y", "x"), np.random.default_rng(0).random((4000, 2000)))})
    data.to_zarr(path, consolidated=False, encoding={"v": {"chunks": (10, 2000)}})
    return path


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(*arguments, **options):
    return subprocess.run([COMMAND, *arguments], check=False, capture_output=True, timeout=120, **options)


# ---------------------------------------------------------------------- written into


def test_a_pipe_is_written_into(url, tmp_path):
    pipe, read = tmp_path / "pipe.csv", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert main(["scan", url, "--output", str(pipe)]) == 0
    reader.join(30)
    assert read == [CSV]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert names(tmp_path) == ["pipe.csv"]


def test_a_pipe_whose_reader_leaves_ends_it_quietly(long, tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with subprocess.Popen([COMMAND, "scan", long, "--output", str(pipe)], stderr=subprocess.PIPE) as process:
        with pipe.open("rb") as file:
            assert file.readline() == b"y,x,v\n"
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE
    assert names(tmp_path) == ["pipe.csv"]


@pytest.mark.parametrize("target", ["full", "missing"])
def test_a_symbolic_link_stays_and_what_it_leads_to_is_written(url, tmp_path, target):
    (tmp_path / "elsewhere").mkdir()
    aim = tmp_path / "elsewhere" / "rows.csv"
    if target == "full":
        aim.write_text("old")
    (tmp_path / "middle.csv").symlink_to("elsewhere/rows.csv")
    (tmp_path / "link.csv").symlink_to("middle.csv")
    assert main(["scan", url, "--output", str(tmp_path / "link.csv")]) == 0
    assert aim.read_bytes() == CSV
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "middle.csv").is_symlink()
    assert names(tmp_path) == ["elsewhere", "link.csv", "middle.csv"]
    assert names(tmp_path / "elsewhere") == ["rows.csv"]


def test_a_link_that_leads_to_itself_is_an_error(url, tmp_path, capsys):
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert main(["scan", url, "--output", str(tmp_path / "loop.csv")]) != 0
    assert (tmp_path / "loop.csv").is_symlink()
    assert capsys.readouterr().err.count("\n") == 1


def device(folder, number) -> Path:
    """A device of this test's own: who may replace those of the machine must not try it with them."""
    if os.geteuid() != 0:
        return Path("/dev/null" if number == NULL else "/dev/full")
    path = folder / f"device{number}"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, number))
    return path


NULL, FULL = 3, 7


def test_a_device_is_written_into(url, tmp_path):
    path = device(tmp_path, NULL)
    before = path.lstat()
    assert main(["scan", url, "--output", str(path), "--format", "parquet"]) == 0
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)


def test_a_device_without_room_is_an_error_and_stays(url, tmp_path, capsys):
    path = device(tmp_path, FULL)
    assert main(["scan", url, "--output", str(path), "--format", "csv"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert stat.S_ISCHR(path.lstat().st_mode)


@pytest.mark.parametrize("name", ["/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_name(url, tmp_path, name):
    arguments = ["scan", url, "--format", "csv", "--output", name]
    assert run(*arguments).stdout == CSV
    with (tmp_path / "out").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        assert subprocess.run([COMMAND, *arguments], check=False, stdout=file, timeout=60).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"before\n" + CSV
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/fd/3", "/dev//fd/1", "/dev/./stdout"]
)
def test_names_of_what_is_open_are_no_files(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rainbear_dask.cli.outputs._state", pytest.fail)
        check_output(name)


def test_standard_output_that_is_closed_is_an_error():
    done = subprocess.run(["sh", "-c", f"'{COMMAND}' scan x.zarr >&-"], check=False, stderr=subprocess.PIPE, timeout=60)
    assert b"Traceback" not in done.stderr


def at_terminal(*arguments) -> tuple[int, bytes]:
    """Exit code of a command, and what it shows on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([COMMAND, *arguments], stdout=theirs, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 10_000):
                shown += part
        except OSError:  # how a terminal ends
            pass
        os.close(ours)
    return process.returncode, shown.replace(b"\r\n", b"\n")


def test_a_terminal_shows_rows_escaped_and_a_file_has_them_as_they_are(tmp_path):
    odd = "\x1b]0;owned\x07\u202e"
    data = xr.Dataset({"v": ("x", np.array([f"a{odd}", "é"], dtype=object))})
    data.to_zarr(tmp_path / "s.zarr", consolidated=False, zarr_format=2)
    code, shown = at_terminal("scan", str(tmp_path / "s.zarr"), "--no-progress")
    assert code == 0
    assert shown.decode() == "x,v\n0,a\\x1b]0;owned\\x07\\u202e\n1,é\n"
    assert run("scan", str(tmp_path / "s.zarr")).stdout.decode() == f"x,v\n0,a{odd}\n1,é\n"
    assert main(["scan", str(tmp_path / "s.zarr"), "--output", str(tmp_path / "rows.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "rows.parquet")["v"].to_list() == [f"a{odd}", "é"]


def test_a_terminal_is_given_no_bytes(url):
    code, shown = at_terminal("scan", url, "--format", "parquet")
    assert code == 2
    assert b"PAR1" not in shown
    assert b"not for a terminal" in shown


# ---------------------------------------------------------------------- refused


def make_folder(path):
    path.mkdir()


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_read_only(path):
    path.write_text("old")
    path.chmod(0o444)


def make_linked(path):
    path.write_text("old")
    path.with_name("other.csv").hardlink_to(path)


def make_link_to_folder(path):
    path.symlink_to(".")


REFUSED = {
    "a folder": (make_folder, "is a folder"),
    "a socket": (make_socket, "is a socket"),
    "a file that is read-only": (make_read_only, "is read-only"),
    "a file of two names": (make_linked, "2 names"),
    "a link to a folder": (make_link_to_folder, "is a folder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_not_be_replaced_is_refused_before_anything_is_read(kind, url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # addresses of sockets are short
    make, words = REFUSED[kind]
    make(Path("rows.csv"))
    before = names(tmp_path), os.lstat("rows.csv")
    assert main(["scan", f"{url}/nothing", "--output", "rows.csv"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    after = os.lstat("rows.csv")
    assert (names(tmp_path), after.st_ino, after.st_mode) == (before[0], before[1].st_ino, before[1].st_mode)


# ---------------------------------------------------------------------- replaced


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_file_keeps_its_permissions(url, tmp_path, mode):
    output = tmp_path / "rows.csv"
    output.write_text("old")
    output.chmod(mode)
    assert main(["scan", url, "--output", str(output)]) == 0
    assert output.read_bytes() == CSV
    assert stat.S_IMODE(output.stat().st_mode) == mode


def test_a_file_keeps_its_owner(url, tmp_path):
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    output = tmp_path / "rows.csv"
    output.write_text("old")
    os.chown(output, *owner)
    assert main(["scan", url, "--output", str(output)]) == 0
    assert (output.stat().st_uid, output.stat().st_gid) == owner


def test_a_new_file_has_the_permissions_of_the_process(url, tmp_path):
    before = os.umask(0o027)
    try:
        assert main(["scan", url, "--output", str(tmp_path / "rows.csv")]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rows.csv").stat().st_mode) == 0o640


def test_a_name_as_long_as_names_may_be(url, tmp_path):
    name = "é" * 125 + ".csv"
    assert main(["scan", url, "--output", str(tmp_path / name)]) == 0
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("old", [b"the old rows", None])
def test_what_fails_leaves_a_file_as_it_was_and_nothing_beside_it(damaged, tmp_path, old):
    output = tmp_path / "rows.csv"
    if old is not None:
        output.write_bytes(old)
    assert main(["scan", damaged, "--output", str(output)]) == 3
    assert names(tmp_path) == (["rows.csv"] if old else [])
    assert old is None or output.read_bytes() == old


# ---------------------------------------------------------------------- signals


def started(command, half, **options):
    """A command that writes, once it does."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
    while not list(half.glob(".rows.csv.*")) and process.poll() is None:
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_old_file_whole_and_nothing_beside_it(long, tmp_path, number):
    (tmp_path / "rows.csv").write_text("old")
    process = started([COMMAND, "scan", long, "--output", str(tmp_path / "rows.csv")], tmp_path)
    process.send_signal(number)
    if number != signal.SIGINT:
        process.send_signal(number)  # a terminal, and a batch system, may say it twice
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, error
    assert error == b""
    assert names(tmp_path) == ["rows.csv"]
    assert (tmp_path / "rows.csv").read_text() == "old"


@pytest.mark.parametrize("second", [signal.SIGHUP, signal.SIGTERM])
def test_a_second_signal_while_the_process_ends_changes_nothing(long, tmp_path, second):
    code = f"""
import os
from rainbear_dask.cli.parser import main
code = main()
os.kill(os.getpid(), {int(second)})
os._exit(code)
"""
    process = started([sys.executable, "-c", code, "scan", long, "--output", str(tmp_path / "rows.csv")], tmp_path)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 128 + signal.SIGHUP


def test_a_signal_that_the_caller_ignores_stays_ignored(long, tmp_path):
    process = started(
        ["sh", "-c", f"trap '' HUP; exec '{COMMAND}' scan '{long}' --head 2000000 --output '{tmp_path}/rows.csv'"],
        tmp_path,
    )
    process.send_signal(signal.SIGHUP)
    said = process.communicate(timeout=120)[1]
    assert said.startswith(b"rainbear-dask: wrote 2,000,000 rows")
    assert said.count(b"\n") == 1
    assert process.returncode == 0
    assert pl.scan_csv(tmp_path / "rows.csv").select(pl.len()).collect().item() == 2_000_000


@pytest.mark.parametrize("command", ["info", "plan"])
def test_a_reader_that_leaves_ends_every_command_quietly(url, command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([COMMAND, command, url], check=False, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_store_whose_error_speaks_of_a_pipe_is_an_error(capsys, monkeypatch, url):
    from rainbear_dask.cli import commands  # noqa: PLC0415
    from rainbear_dask.exceptions import StoreError  # noqa: PLC0415

    def fail(*_):
        raise StoreError("chunk (0,) cannot be read: Broken pipe (os error 32).")

    monkeypatch.setitem(commands._COMMANDS, "info", fail)
    assert main(["info", url]) == 3
    assert "Broken pipe" in capsys.readouterr().err
