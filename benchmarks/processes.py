"""Memory of this process, and of a process of its own."""

import subprocess
import sys
from pathlib import Path


def status(kind: str) -> int:
    """Return the memory of this process in bytes, for Linux: "VmRSS" now, "VmHWM" at its peak.

    The peak of `resource.getrusage` is of no use: it starts at the value of the parent process.
    """
    return int(Path("/proc/self/status").read_text().partition(f"{kind}:")[2].split()[0]) * 1024


def added_peak(first: str, question: str) -> int:
    """Return the bytes that a question adds at its peak to a process that has run other code first."""
    code = (
        f"from pathlib import Path\nfrom benchmarks.processes import status\n{first}\n"
        "Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew\n"
        f"before = status('VmRSS')\n{question}\nprint(status('VmHWM') - before)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)  # noqa: S603  our own
    return int(done.stdout.split()[-1])
