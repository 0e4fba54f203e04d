"""Check the prose of the project: forbidden phrases, long lines of Markdown, long modules. Part of ``make lint``.

The check reads the comments, docstrings and messages of the package, and all Markdown files. It finds a phrase across a
line break. It skips code: backticked spans and the statements of modules.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
MAX_MODULE_LINES = 400
MAX_MARKDOWN_COLUMNS = 100

# Each has a shorter form: an actor with an active verb, or a noun in place of a relative clause.
FORBIDDEN = [
    "of what",
    "of which",
    "those of",
    "whatever",
    "what is",
    "what comes",
    "who",
    "is had",
    "is asked of",
    "is taken",
]
_PHRASES = re.compile(r"\b(" + "|".join(phrase.replace(" ", r"\s+") for phrase in FORBIDDEN) + r")\b", re.IGNORECASE)
_CODE = re.compile(r"``[^`]+``|`[^`]+`")
_ADDRESS = re.compile(r"\]\([^)]*\)|https?://\S+")


class Finding(NamedTuple):
    """A place in a file, and the change that it needs."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def phrases_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield each forbidden phrase of a text, with the number of lines before it."""
    prose = _ADDRESS.sub(_blank, _CODE.sub(_blank, text))
    for found in _PHRASES.finditer(prose):
        yield prose.count("\n", 0, found.start()), " ".join(found[0].split()).lower()


def _blank(code: re.Match[str]) -> str:
    """Replace a span of code by its line breaks, behind a character that splits phrases."""
    return "|" + "\n" * code[0].count("\n")


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield each block of comments and each string of a module, with its first line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("#! ")) for token in tokens if token.type == tokenize.COMMENT]
    # in consecutive lines, the difference between line number and index is constant
    for _, block in groupby(enumerate(comments), key=lambda item: item[1][0] - item[0]):
        lines = [comment for _, comment in block]
        yield lines[0][0], "\n".join(text for _, text in lines)
    nodes = list(ast.walk(ast.parse(source)))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def check_module(file: Path) -> Iterator[Finding]:
    """Yield the forbidden phrases of a module, and its length if it is too long."""
    source = file.read_text()
    for first, text in texts_of(source):
        for line, phrase in phrases_of(text):
            yield Finding(file, first + line, f'rewrite "{phrase}"')
    if (length := len(source.splitlines())) > MAX_MODULE_LINES:
        yield Finding(file, length, f"split this module: it has more than {MAX_MODULE_LINES} lines")


def check_markdown(file: Path) -> Iterator[Finding]:
    """Yield the forbidden phrases of a Markdown file, and its lines that are too long. Tables may be wide."""
    text = file.read_text()
    for line, phrase in phrases_of(text):
        yield Finding(file, 1 + line, f'rewrite "{phrase}"')
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_MARKDOWN_COLUMNS and not line.startswith("|"):
            yield Finding(file, number, f"wrap this line: it has more than {MAX_MARKDOWN_COLUMNS} columns")


def check_tree(root: Path) -> Iterator[Finding]:
    """Yield all findings of a project: its package and its Markdown files."""
    for module in sorted(root.glob("rainbear_dask/**/*.py")):
        yield from check_module(module)
    for pattern in ("*.md", "docs/**/*.md", "cluster/**/*.md", "benchmarks/*.md"):
        for page in sorted(root.glob(pattern)):
            yield from check_markdown(page)


def main() -> int:
    """Print all findings of this project. Return 1 if there is one."""
    findings = list(check_tree(ROOT))
    for finding in findings:
        print(finding._replace(file=finding.file.relative_to(ROOT)))  # noqa: T201  a script
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
