"""Run the ``python`` blocks of a page in order, and put the result of each below it.

A page runs in a kernel of its own, in an empty folder. A block that may fail has ``raises`` behind its language. Blocks
in other languages, and those marked ``py``, do not run.
"""

import base64
import os
import re
import tempfile
from html import escape
from pathlib import Path
from subprocess import DEVNULL
from textwrap import indent
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

BLOCK = re.compile(r"^```python(?P<mark> raises)?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP = "%matplotlib inline\nimport polars as pl\npl.Config.set_tbl_rows(10)"
SECONDS = 120
TEXT_LINES = 40


class ExampleError(Exception):
    """An example fails; the message names its page and shows the block."""


class Executed(NamedTuple):
    """A page with its results: Markdown, figures by file name, and a notebook to download."""

    markdown: str
    figures: dict[str, bytes]
    notebook: str


def has_code(markdown: str) -> bool:
    return BLOCK.search(markdown) is not None


def execute(markdown: str, name: str) -> Executed:
    """Run a page. Raise an error that names it if a block fails."""
    parts, end = [nbformat.v4.new_code_cell(SETUP)], 0
    for block in BLOCK.finditer(markdown):
        parts.append(nbformat.v4.new_markdown_cell(markdown[end : block.start()].strip()))
        tags = ["raises-exception"] if block["mark"] else []
        parts.append(nbformat.v4.new_code_cell(block["code"].strip(), metadata={"tags": tags}))
        end = block.end()
    parts.append(nbformat.v4.new_markdown_cell(markdown[end:].strip()))
    notebook = nbformat.v4.new_notebook(cells=parts)
    with tempfile.TemporaryDirectory() as folder:
        try:
            NotebookClient(
                notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
            ).execute(env=os.environ | _environment(), stdout=DEVNULL, stderr=DEVNULL)
        except CellExecutionError as error:
            (failed,) = (cell.source for cell in notebook.cells if _has_failed(cell))
            raise ExampleError(f"{name}: {error.ename}: {error.evalue}\n{indent(failed, '    ')}") from None
    del notebook.cells[0]
    notebook = nbformat.reads(nbformat.writes(notebook).replace(f"{folder}/", ""), as_version=4)
    figures: dict[str, bytes] = {}
    texts = [_shown(cell, Path(name).stem, figures) for cell in notebook.cells]
    return Executed("\n\n".join(texts) + "\n", figures, nbformat.writes(notebook))


def _has_failed(cell: nbformat.NotebookNode) -> bool:
    may_fail = "raises-exception" in cell.metadata.get("tags", [])
    return not may_fail and any(output.output_type == "error" for output in cell.get("outputs", []))


def _environment() -> dict[str, str]:
    return {
        "MATPLOTLIBRC": str(Path(__file__).with_name("matplotlibrc")),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }


def _shown(cell: nbformat.NotebookNode, stem: str, figures: dict[str, bytes]) -> str:
    """Return a cell as Markdown, and add its figures."""
    if cell.cell_type == "markdown":
        return cell.source
    outputs = [_output(output, stem, figures) for output in cell.outputs]
    return "\n\n".join([f"```python\n{cell.source}\n```", *filter(None, outputs)])


def _output(output: nbformat.NotebookNode, stem: str, figures: dict[str, bytes]) -> str:
    if output.output_type == "stream":
        return _text(output.text) if output.name == "stdout" else ""  # progress bars draw on the other stream
    if output.output_type == "error":
        return _text(f"{output.ename}: {output.evalue}")
    if "image/png" in output.data:
        name = f"{stem}-{len(figures) + 1}.png"
        figures[name] = base64.b64decode(output.data["image/png"])
        return f'<div class="output" markdown="1">![Figure {len(figures)} of this page]({name})</div>'
    if "text/html" in output.data:
        return f'<div class="output">{output.data["text/html"]}</div>'
    return _text(output.data["text/plain"])


def _text(text: str) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) > TEXT_LINES:
        lines = [*lines[:TEXT_LINES], "..."]
    return f'<pre class="output">{escape(chr(10).join(lines))}</pre>'
