"""Write the pages of the site into a folder: those of ``docs`` and of other files, with the results of their examples.

``make docs`` runs it, and mkdocs turns the folder into HTML. The two steps share nothing but Markdown.
"""

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import execute
import pages

KERNELS = 2


def build(target: Path) -> None:
    """Replace a folder by the pages. Exit with all failures of examples if there are any."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pages.ROOT / "docs", target, ignore=shutil.ignore_patterns("hooks", "*.py", "__pycache__"))
    for address, text in pages.generated().items():
        _write(target / address, text)
    texts = {}
    for file in sorted(target.glob("**/*.md")):
        address = str(file.relative_to(target))
        texts[address], downloads = pages.with_links(address, file.read_text())
        for download in downloads:
            _write(target / "files" / download, (pages.ROOT / download).read_bytes())
    copied = pages.COPIED.values()  # their examples need services
    examples = {address: text for address, text in texts.items() if execute.has_code(text) and address not in copied}
    with ThreadPoolExecutor(KERNELS) as pool:
        jobs = {address: pool.submit(_execute, text, address) for address, text in examples.items()}
    if errors := [str(error) for job in jobs.values() if (error := job.exception())]:
        sys.exit("\n".join(errors))
    for address, job in jobs.items():
        result = job.result()
        notebook = PurePosixPath(address).with_suffix(".ipynb")
        link = f"\n[Download this page as a notebook]({notebook.name}){{ .notebook }}\n"
        texts[address] = result.markdown + link
        _write(target / notebook, result.notebook)
        for name, figure in result.figures.items():
            _write((target / address).with_name(name), figure)
    texts[pages.GALLERY] = pages.gallery(texts)
    for address, text in (texts | pages.for_machines(texts)).items():
        _write(target / address, text)


def _execute(text: str, address: str) -> execute.Executed:
    start = time.perf_counter()
    result = execute.execute(text, address)
    print(f"{time.perf_counter() - start:5.1f} s  {address}")
    return result


def _write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
