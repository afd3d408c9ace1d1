"""Which resource a name on the command line means.

A copy has a hashed name where it was copied to, which nobody types: what it is called where it was
made will do, as long as one resource is called so.
"""

from __future__ import annotations

from zonemesh.cli.client import Client, Document, item_path, list_path
from zonemesh.errors import ConflictError, NotFoundError
from zonemesh.labels import DISPLAY_NAME

_SHOWN_MAX = 10


def named(client: Client, collection: str, mesh: str | None, kind: str, name: str) -> str:
    """What the server calls the resource.

    Raises:
        NotFoundError: Nothing is called so, here or where it was made.
        ConflictError: Several are where they were made.
    """
    if client.find(item_path(collection, mesh, name)) is not None:
        return name
    query = ((f"filter[labels.{DISPLAY_NAME}]", name),)
    found = list(client.items(list_path(collection, mesh), _SHOWN_MAX, query))
    if not found:
        where = "" if mesh is None else f" in mesh {mesh}"
        raise NotFoundError(f"No resources found{where}: {kind} {name}")
    if len(found) > 1:
        names = ", ".join(_told(each) for each in found)
        raise ConflictError(f"several are called {name} where they were made: {names}")
    return str(found[0]["name"])


def _told(document: Document) -> str:
    zone = (document.get("labels") or {}).get("kuma.io/zone")
    return f"{document['name']} ({f'zone {zone}' if zone else 'global'})"
