"""Which resource a name on the command line means.

A copy has a hashed name where it was copied to, which nobody types: what it is called where it was
made will do, as long as one resource is called so.
"""

from __future__ import annotations

from zonemesh.cli.catalogue import Row
from zonemesh.cli.client import Client, Document, item_path, list_path
from zonemesh.errors import ConflictError, NotFoundError
from zonemesh.labels import DISPLAY_NAME, ZONE

_SHOWN_MAX = 10


def named(client: Client, row: Row, mesh: str | None, name: str) -> Document:
    """The resource that is called so.

    Raises:
        NotFoundError: Nothing is, here or where it was made.
        ConflictError: Several are where they were made.
    """
    here = client.find(item_path(row.path, mesh, name))
    if here is not None:
        return here
    query = ((f"filter[labels.{DISPLAY_NAME}]", name),)
    found = list(client.items(list_path(row.path, mesh), _SHOWN_MAX, query))
    if not found:
        where = "" if mesh is None else f" in mesh {mesh}"
        raise NotFoundError(f"No resources found{where}: {row.name} {name}")
    if len(found) > 1:
        names = ", ".join(_told(each) for each in found)
        raise ConflictError(f"several are called {name} where they were made: {names}")
    return found[0]


def _told(document: Document) -> str:
    zone = (document.get("labels") or {}).get(ZONE)
    return f"{document['name']} ({f'zone {zone}' if zone else 'global'})"
