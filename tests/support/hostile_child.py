"""A process that scans stores one after the other, and reports each outcome and its peak memory."""

import json
import sys
from pathlib import Path


def scan(source: object) -> str:
    """Scan a whole store. Return the outcome."""
    import rainbear_dask as rd  # noqa: PLC0415  the parent does not need it

    try:
        frame = rd.scan_zarr(source).collect()
    except rd.exceptions.RainbearError as error:
        return f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001  the test expects none
        return f"NOT OURS {type(error).__name__}: {error}"
    return f"rows: {frame.shape}"


def opening_id(kind: str, root: Path) -> object:
    """Return a store as a source of some kind, loaded before the measurement if possible."""
    packed = root / "s.zip"
    if packed.exists():
        return str(packed)
    if kind == "folder":
        return str(root)
    from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415
    from zarr.storage import MemoryStore  # noqa: PLC0415

    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    if kind == "memory":
        make = default_buffer_prototype().buffer.from_bytes
        return MemoryStore({key: make(content) for key, content in files.items()})
    if kind == "obstore":
        import obstore  # noqa: PLC0415
        from obstore.store import MemoryStore as ObjectsInMemory  # noqa: PLC0415

        store = ObjectsInMemory()
        for key, content in files.items():
            obstore.put(store, key, content)
        return store
    import fsspec  # noqa: PLC0415

    memory_files = fsspec.filesystem("memory")
    for key, content in files.items():
        memory_files.pipe_file(f"/{root.name}/{key}", content)
    return f"memory://{root.name}"


def main(kind: str, *roots: str) -> None:
    """Scan stores one after the other. Print the outcome of each, and the bytes of its peak above the start."""
    import warnings  # noqa: PLC0415

    warnings.simplefilter("ignore")
    for root in (str(Path(roots[0]).parent / "good"), *roots):  # the first scan only loads the libraries
        source = opening_id(kind, Path(root))
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        found = scan(source)
        sys.stdout.write(json.dumps([root, found, memory("VmHWM") - before]) + "\n")
        sys.stdout.flush()


def memory(what: str) -> int:
    """Return the memory of this process in bytes, for Linux."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
