"""`zonedp envoy`: configuration for an Envoy that somebody else runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from zonecp.dataplane.cache import read_outbounds
from zonecp.dataplane.envoy import bootstrap
from zonecp.dataplane.outbounds import Outbound
from zonecp.dataplane.token import Token
from zonemesh.cli.client import Client
from zonemesh.errors import MeshError, UnavailableError

if TYPE_CHECKING:
    from zonecp.dataplane.config import Config

REQUEST_S: Final = 10.0
BODY_BYTES_MAX: Final = 256 << 20


def node_of(config: Config, name: str) -> bootstrap.Node:
    return bootstrap.Node(
        mesh=config.dataplane.mesh,
        dataplane=name,
        admin_address=config.envoy.admin_address,
        admin_port=config.dataplane.admin_port,
    )


def bootstrap_text(config: Config, name: str) -> str:
    """A bootstrap as YAML: for files if `envoy.configDir` is set, else for the agent's socket."""
    node = node_of(config, name)
    if config.envoy.config_dir is not None:
        document = bootstrap.for_files(node, config.envoy.config_dir.absolute())
    else:
        document = bootstrap.for_ads(node, config.envoy.socket_in(config.data_dir))
    return yaml.safe_dump(document, sort_keys=False)


def config_text(config: Config, name: str, dataplane: dict[str, Any] | None, form: str) -> str:
    """The configuration as of now.

    Args:
        config: The agent's.
        name: The Dataplane's: what it may not reach is left out.
        dataplane: The document of the workload, if there is one.
        form: `static` (all of it, YAML), `lds` or `cds` (JSON as Envoy watches it).

    Raises:
        UnavailableError: No zone answers, and there is no map on disk.
    """
    # Here, as it brings in protobuf, which `bootstrap_text` does without.
    from zonecp.dataplane.envoy import files, listeners  # noqa: PLC0415
    from zonecp.dataplane.envoy.sidecar import shape_of  # noqa: PLC0415
    from zonecp.dataplane.envoy.store import CLUSTER, LISTENER  # noqa: PLC0415

    shape = shape_of(config.envoy, config.dns.vip_ranges, static=True)
    found = files.documents(_outbounds(config, name), shape, listeners.inbounds_of(dataplane or {}))
    if form == "lds":
        return json.dumps(files.discovery(LISTENER, found[LISTENER]), indent=2) + "\n"
    if form == "cds":
        return json.dumps(files.discovery(CLUSTER, found[CLUSTER]), indent=2) + "\n"
    document = bootstrap.whole(node_of(config, name), found[LISTENER], found[CLUSTER])
    return yaml.safe_dump(document, sort_keys=False)


def _outbounds(config: Config, name: str) -> Iterable[Outbound]:
    errors = []
    path = f"/meshes/{config.dataplane.mesh}/_vips"
    headers = Token(config.dataplane_runtime).headers()
    for url in config.control_plane.urls:
        client = Client(url, REQUEST_S, headers, BODY_BYTES_MAX)
        try:
            found = client.get(path, [("dataplane", name)])
            return msgspec.convert(found.get("outbounds"), list[Outbound])
        except (MeshError, msgspec.MsgspecError) as error:
            errors.append(f"{url}: {error}")
        finally:
            client.close()
    cached = read_outbounds(config.data_dir, config.dataplane.mesh)
    if cached is None:
        at = Path(config.data_dir)
        raise UnavailableError(f"no zone answers and {at} has no map: {'; '.join(errors)}")
    return cached
