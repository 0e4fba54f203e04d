"""Build an image without a container engine, for test pods that mount their programs from the host.

``python image.py FILE NAME [PATH [SOURCE:DESTINATION ...]]`` writes a docker archive with empty folders, links of a
merged /usr, and the files named; PATH is the search path of its commands.
"""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Sequence


def layer(files: Sequence[str]) -> bytes:
    """Return a root file system as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for link in ("bin", "lib", "lib64", "sbin"):
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
        users = b"root:x:0:0:root:/root:/bin/sh\nrainbear:x:1000:1000::/tmp:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(users)
        tar.addfile(entry, io.BytesIO(users))
        for file in files:
            source, destination = file.split(":")
            tar.add(source, destination.lstrip("/"))
    return buffer.getvalue()


def main(target: str, name: str, path: str = "/usr/bin", *files: str) -> None:
    """Write the image."""
    content = layer(files)
    command = {"Entrypoint": [files[0].split(":")[1]]} if files else {}
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [f"PATH={path}", "HOME=/tmp"], **command},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as archive:
        for file, data in ((config_name, config), ("layer.tar", content), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
