"""`zonedp envoy`: configuration for an Envoy that somebody else runs."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from zonecp.dataplane.cache import read_outbounds
from zonecp.dataplane.envoy import bootstrap
from zonecp.dataplane.outbounds import Outbound
from zonemesh.errors import UnavailableError

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
    query = urllib.parse.urlencode({"dataplane": name})
    for url in config.control_plane.urls:
        try:
            return _ask(f"{url}/meshes/{config.dataplane.mesh}/_vips?{query}")
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            errors.append(f"{url}: {error}")
    cached = read_outbounds(config.data_dir, config.dataplane.mesh)
    if cached is None:
        at = Path(config.data_dir)
        raise UnavailableError(f"no zone answers and {at} has no map: {'; '.join(errors)}")
    return cached


def _ask(url: str) -> list[Outbound]:
    with urllib.request.urlopen(url, timeout=REQUEST_S) as response:  # noqa: S310 -- http(s) is checked
        body = response.read(BODY_BYTES_MAX)
    return msgspec.json.decode(body, type=_Map).outbounds


class _Map(msgspec.Struct):
    outbounds: list[Outbound]
