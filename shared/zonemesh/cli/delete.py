"""The command `zonemesh delete`."""

from __future__ import annotations

import click

from zonemesh.cli.catalogue import Catalogue
from zonemesh.cli.client import AnsweredError, Client, item_path
from zonemesh.cli.connection import complete_name, connected, kind_argument, mesh_option
from zonemesh.errors import NotFoundError


@click.command()
@kind_argument
@click.argument("name", shell_complete=complete_name)
@mesh_option
@connected
def delete(client: Client, kind: str, name: str, mesh: str) -> None:
    """Delete the resource of a KIND that is called NAME.

    A service's address rests before another gets it; a service that returns has it again.
    """
    row = Catalogue.fetch(client).find(kind)
    try:
        client.delete(item_path(row.path, row.mesh_of(mesh), name))
    except AnsweredError as error:
        if error.absent:
            raise NotFoundError(f'there is no {row.name} with name "{name}"') from error
        raise
    click.echo(f'deleted {row.name} "{name}"')
