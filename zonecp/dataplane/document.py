"""The Dataplane document that the agent is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zonecp.dataplane import probe as probe_rules
from zonecp.dataplane.config import Config
from zonemesh.errors import ConfigError
from zonemesh.runtime.config import read_file


def configured_dataplane(config: Config) -> dict[str, Any] | None:
    """The document to register, None without one.

    Raises:
        ConfigError: As `read_dataplane`, or its probes are none.
    """
    path = config.dataplane_runtime.resource_path
    if path is None:
        return None
    document = read_dataplane(path, mesh=config.dataplane.mesh, name=config.dataplane.name)
    try:
        probe_rules.probes(document)
    except ConfigError as error:
        raise ConfigError([f"{path}: {fault}" for fault in error.faults]) from error
    return document


def read_dataplane(path: Path, *, mesh: str, name: str | None) -> dict[str, Any]:
    """Read a Dataplane document; `mesh` and `name` fill what it leaves out.

    Raises:
        ConfigError: Not readable, not a Dataplane, or of another mesh or name than configured.
    """
    document = dict(read_file(path))
    wanted = {"type": "Dataplane", "mesh": mesh} | ({} if name is None else {"name": name})
    faults = [
        f"{path}: {key}: {document[key]!r} is not {value!r}"
        for key, value in wanted.items()
        if document.get(key, value) != value
    ]
    document = wanted | document
    if not isinstance(document.get("name"), str):
        faults.append(f"{path}: name: must be given here or as dataplane.name (--name)")
    if faults:
        raise ConfigError(faults)
    return document
