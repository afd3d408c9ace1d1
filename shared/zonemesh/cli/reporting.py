"""Errors of a command, as lines on stderr and an exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import click

from zonemesh.cli.client import AnsweredError
from zonemesh.errors import ConfigError, InputError, MeshError, WireError

P = ParamSpec("P")


def reporting(run: Callable[P, None]) -> Callable[P, None]:
    """Turn a command's errors into lines; 2 where the command line is wrong, else 1."""

    @functools.wraps(run)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except MeshError as error:
            for number, line in enumerate(lines_of(error)):
                click.echo(line if number else f"Error: {line}", err=True)
            # What was read is damaged: no other command line would help.
            wrong_line = isinstance(error, InputError) and not isinstance(error, WireError)
            sys.exit(2 if wrong_line else 1)

    return command


def lines_of(error: MeshError) -> tuple[str, ...]:
    match error:
        case AnsweredError(lines=lines) | ConfigError(faults=lines):
            return lines
        case _:
            return (str(error),)
