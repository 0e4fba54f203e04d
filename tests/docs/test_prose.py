"""The check of prose that ``make lint`` runs finds what it should, at its line, and nothing in code."""

import pytest

from tests.support.prose import FORBIDDEN, check_markdown, check_module, check_tree


def findings(check, tmp_path, text):
    file = tmp_path / "some_file"
    file.write_text(text)
    return [(finding.line, finding.text) for finding in check(file)]


@pytest.mark.parametrize("phrase", FORBIDDEN)
def test_a_forbidden_phrase_is_found_in_prose(tmp_path, phrase):
    expected = [(2, f'rewrite "{phrase}"')]
    assert findings(check_markdown, tmp_path, f"One line.\nSome {phrase} here.\n") == expected
    assert findings(check_module, tmp_path, f"a = 1\n# Some {phrase} here.\n") == expected
    assert findings(check_module, tmp_path, f"a = 1\nb = 'Some {phrase} here.'\n") == expected
    assert findings(check_module, tmp_path, f"a = 1\nb = f'{{a}} {phrase} {{a}}'\n") == expected
    assert findings(check_module, tmp_path, f'"""\nSome {phrase} here.\n"""\n') == expected


def test_a_phrase_may_continue_on_the_next_line(tmp_path):
    assert findings(check_markdown, tmp_path, "A list of\nwhich two.\n") == [(1, 'rewrite "of which"')]
    assert findings(check_module, tmp_path, "a = 1\n# A list of\n# which two.\n") == [(2, 'rewrite "of which"')]


@pytest.mark.parametrize(
    "source",
    [
        "whole, whose, whoever = 1, 2, 3\n",
        "# the whole of it\n",
        "who = 1\n",
        '"""Call `who` and ``whatever``."""\n',
        "a = 1  # a list of\nb = 2\nc = 3  # which two\n",
        "a = f'{who} is here'\n",
    ],
)
def test_code_and_longer_words_are_no_findings(tmp_path, source):
    assert findings(check_module, tmp_path, source) == []


def test_code_and_addresses_of_markdown_are_no_findings(tmp_path):
    assert findings(check_markdown, tmp_path, "Call `who`, see [a page](who/what-is.md).\n") == []


def test_a_long_line_of_markdown_is_found_unless_it_is_a_row_of_a_table(tmp_path):
    text = f"{'x' * 100}\n| {'x' * 200} |\n{'x' * 101}\n"
    assert findings(check_markdown, tmp_path, text) == [(3, "wrap this line: it has more than 100 columns")]


def test_a_long_module_is_found(tmp_path):
    assert findings(check_module, tmp_path, "a = 1\n" * 400) == []
    assert findings(check_module, tmp_path, "a = 1\n" * 401) == [(401, "split this module: it has more than 400 lines")]


def test_a_tree_is_its_package_and_its_pages(tmp_path):
    for name in ("rainbear_dask/chunks/read.py", "README.md", "docs/packages/chunks.md", "tests/test_it.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# who\n")
    actual = [str(finding.file.relative_to(tmp_path)) for finding in check_tree(tmp_path)]
    assert actual == ["rainbear_dask/chunks/read.py", "README.md", "docs/packages/chunks.md"]
