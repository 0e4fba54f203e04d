"""Completion scripts for shells, which shtab makes of the parser."""

import argparse

from rainbear_dask.dependencies import require

_PATHS = {"url", "zones", "points", "folder", "target", "output"}
"""Arguments that may be paths."""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a script that completes the commands and options of a parser.

    Parameters
    ----------
    parser : ArgumentParser
        The parser of the program.
    shell : {"bash", "zsh", "tcsh"}
        The shell that reads the script.

    Raises
    ------
    MissingDependencyError
        If shtab is not installed.
    """
    shtab = require("shtab", extra="completion")
    for each in _parsers(parser):
        for action in each._actions:  # noqa: SLF001  as shtab itself does
            if action.dest in _PATHS:
                vars(action)["complete"] = shtab.FILE  # shtab reads this attribute
    script: str = shtab.complete(parser, shell=shell)
    return script


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    return [parser, *commands.choices.values()]
