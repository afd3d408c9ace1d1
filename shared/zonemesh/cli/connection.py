"""What every command that asks a control plane has alike: where it is, exit codes, completion."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import click
from click.shell_completion import CompletionItem

from zonemesh.cli.catalogue import Catalogue
from zonemesh.cli.client import Client, list_path
from zonemesh.cli.options import URL, URL_VARIABLE, timeout_option, url_option
from zonemesh.cli.reporting import reporting
from zonemesh.errors import MeshError

MESH = "default"
TIMEOUT_S = 10.0
COMPLETION_TIMEOUT_S = 1.0
"""Somebody waits at a prompt."""
COMPLETIONS_MAX = 200

P = ParamSpec("P")


def connected(run: Callable[Concatenate[Client, P], None]) -> Callable[P, None]:
    """Give a command a control plane to ask, and turn its errors into lines and an exit code."""

    @url_option("REST address of a control plane, global's or a zone's.")
    @timeout_option(TIMEOUT_S)
    @reporting
    @functools.wraps(run)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        client = Client(str(kwargs.pop("url")), float(str(kwargs.pop("timeout"))))
        try:
            run(client, *args, **kwargs)
        finally:
            client.close()

    return command


def complete_kind(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Kinds for the shell; none where the control plane does not answer."""
    del parameter

    def kinds(client: Client) -> list[str]:
        return sorted(row.path for row in Catalogue.fetch(client).rows)

    return _completed(context, incomplete, kinds)


def complete_name(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the kind that stands before, for the shell."""
    del parameter

    def names(client: Client) -> list[str]:
        row = Catalogue.fetch(client).find(str(context.params.get("kind")))
        path = list_path(row.path, row.mesh_of(context.params.get("mesh") or MESH))
        query = (("name", incomplete), ("size", str(COMPLETIONS_MAX)))
        return [str(each["name"]) for each in client.get(path, query).get("items") or ()]

    return _completed(context, incomplete, names)


def _completed(
    context: click.Context, incomplete: str, find: Callable[[Client], list[str]]
) -> list[CompletionItem]:
    url: Any = context.params.get("url") or os.environ.get(URL_VARIABLE) or URL
    client = Client(url, COMPLETION_TIMEOUT_S)
    try:
        return [CompletionItem(each) for each in find(client) if each.startswith(incomplete)]
    except MeshError:
        return []  # at a prompt an error would only be in the way
    finally:
        client.close()


kind_argument = click.argument("kind", shell_complete=complete_kind)

mesh_option = click.option(
    "-m", "--mesh", default=MESH, show_default=True, help="Mesh, for kinds that are in one."
)
