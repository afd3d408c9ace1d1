"""The domains of the mesh, and names that are outside of them."""

from __future__ import annotations

MESH_DOMAINS = ("mesh.local", "mesh")
"""Where nothing but this mesh has names; Kuma's two."""


def outside(hostname: str) -> str | None:
    """What comes of giving a service a name that is not the mesh's; None if it is."""
    if hostname.endswith(tuple(f".{domain}" for domain in MESH_DOMAINS)):
        return None
    domains = " or ".join(f".{domain}" for domain in MESH_DOMAINS)
    return f'"{hostname}" does not end in {domains} and hides an outside name from data planes'
