"""Pages of the site that come from other files of the project: its tables, its command, its notes."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rainbear_dask.cli import parser as command_line

ROOT = Path(__file__).parents[2]
GALLERY = "gallery.md"
COPIED = {
    "cluster/README.md": "operations/clusters.md",
    "benchmarks/README.md": "about/measurements.md",
    "CHANGELOG.md": "about/changelog.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "SECURITY.md": "about/security.md",
    "CODE_OF_CONDUCT.md": "about/conduct.md",
}
"""Pages of the tree outside of ``docs``, and their addresses in the site."""

_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_FIGURE = re.compile(r"!\[[^\]]*\]\(([^)]+\.png)\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def generated() -> dict[str, str]:
    """Return the pages that are no files of ``docs``, by address."""
    copies = {address: (ROOT / source).read_text() for source, address in COPIED.items()}
    return copies | {
        "howto/index.md": _list("howto", "How to", "One question and its lines on each page."),
        "packages/index.md": _list("packages", "Packages", "The decisions and measurements of one package each."),
        "reference/command.md": _command(),
        "reference/settings.md": _settings(),
    }


def with_links(address: str, text: str) -> tuple[str, list[str]]:
    """Return a page whose links lead to pages of the site, and the other files that it links to."""
    sources = {page: source for source, page in COPIED.items()}
    source = PurePosixPath(sources.get(address, f"docs/{address}"))
    downloads = []

    def translated(link: re.Match[str]) -> str:
        target = os.path.normpath(source.parent / link[1])
        if target in COPIED:
            page = COPIED[target]
        elif target.startswith("docs/"):
            page = target.removeprefix("docs/") + ("/index.md" if (ROOT / target).is_dir() else "")
        elif (ROOT / target).is_file():
            downloads.append(target)
            page = f"files/{target}"
        else:
            return link[0]  # mkdocs reports it
        return f"]({os.path.relpath(page, PurePosixPath(address).parent)}{link[2] or ''})"

    return _LINK.sub(translated, text), downloads


def _list(folder: str, title: str, intro: str) -> str:
    """Return a page that lists the pages of a folder with their first sentences."""
    lines = [f"# {title}", "", intro, ""]
    for page in sorted(ROOT.glob(f"docs/{folder}/*.md")):
        text = page.read_text()
        sentence = text.split("\n\n")[1].replace("\n", " ").split(". ")[0].rstrip(".:")
        lines.append(f"- [{_title(text)}]({page.name}): {sentence}.")
    return "\n".join(lines) + "\n"


def _command() -> str:
    """Return the help texts of the command and of its parts."""
    os.environ["COLUMNS"] = "96"  # argparse wraps its texts at this width
    main = command_line._parser()
    (commands,) = (action.choices for action in main._actions if action.dest == "command")
    parts = [f"## {name}\n\n```text\n{part.format_help()}```" for name, part in commands.items()]
    head = "The command queries stores from a shell and from batch scripts. These are its own help texts."
    return "\n\n".join(["# Command line", head, f"```text\n{main.format_help()}```", *parts]) + "\n"


def _settings() -> str:
    head = (
        "Settings are the section `rainbear-dask` of Dask's configuration. Set them in a file of\n"
        "`~/.config/dask`, in the environment, with `dask.config.set`, or on all present and future workers\n"
        "with `rainbear_dask.plugin.WorkerSettings`: [Settings and errors](../guide/settings.md)."
    )
    parts = []
    for key, value, text in _yaml_rows((ROOT / "rainbear_dask" / "rainbear-dask.yaml").read_text()):
        variable = f"DASK_RAINBEAR_DASK__{key.upper().replace('-', '_').replace('.', '__')}"
        parts.append(f"## {key}\n\n{text}\n\nDefault: `{value}`. In the environment: `{variable}`.")
    return "\n\n".join(["# Settings", head, *parts]) + "\n"


def _yaml_rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and comment of each setting."""
    comment: list[str] = []
    section = ""
    for line in text.splitlines()[3:]:
        if match := re.match(r"(\s+)([a-z-]+): ?(.*)", line):
            indent, key, value = match.groups()
            section = section if len(indent) > 2 else ""
            if value:
                yield f"{section}{key}", value, " ".join(comment)
            else:
                section = f"{key}."
            comment = []
        elif line.strip().startswith("#"):
            comment.append(line.strip("# "))


def gallery(texts: dict[str, str]) -> str:
    """Return a page with the last figure of each page, as a link to it."""
    cards = []
    for address, text in sorted(texts.items()):
        if figures := _FIGURE.findall(text):
            folder = PurePosixPath(address).parent
            title = _title(text)
            cards.append(f"-   [![{title}]({folder / figures[-1]})]({address})\n\n    [{title}]({address})")
    head = "Every figure links to the page with the lines that draw it."
    return (
        "# Gallery\n\n"
        + head
        + '\n\n<div class="grid cards gallery" markdown>\n\n'
        + "\n\n".join(cards)
        + "\n\n</div>\n"
    )


def for_machines(texts: dict[str, str]) -> dict[str, str]:
    """Return ``llms.txt``, which lists the pages, and ``llms-full.txt``, which holds the guides among them."""
    about = "# rainbear_dask\n\n> Query Zarr stores as tidy Polars tables, on one machine or on a Dask cluster.\n"
    pages = {address: text for address, text in sorted(texts.items()) if _TITLE.search(text)}
    lines = [f"- [{_title(text)}]({PurePosixPath(address).with_suffix('.html')})" for address, text in pages.items()]
    skipped = ("about/", "packages/", GALLERY)
    bodies = [_plain(text) for address, text in pages.items() if not address.startswith(skipped)]
    return {"llms.txt": "\n".join([about, *lines]) + "\n", "llms-full.txt": "\n\n".join([about, *bodies]) + "\n"}


def _title(text: str) -> str:
    return _TITLE.search(text)[1]


def _plain(text: str) -> str:
    """Return a page without its pictures and tables of HTML."""
    return re.sub(r'<div class="output".*?</div>\n(?=\n)', "", text, flags=re.DOTALL)
