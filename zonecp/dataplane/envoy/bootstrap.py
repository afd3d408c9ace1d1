"""What an Envoy is started with: where its configuration comes from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ADS_CLUSTER: Final = "zonedp_ads"
"""Kuma's is `ads_cluster`; this one is no service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    mesh: str
    dataplane: str
    admin_address: str = "127.0.0.1"
    admin_port: int = 9901
    """0: Envoy chooses one, and says it in its log."""

    def document(self) -> dict[str, Any]:
        """What every bootstrap has."""
        return {
            "node": {"id": f"{self.mesh}.{self.dataplane}", "cluster": self.dataplane},
            "admin": {"address": _socket_address(self.admin_address, self.admin_port)},
        }


def for_ads(node: Node, socket: Path) -> dict[str, Any]:
    """A bootstrap for an Envoy that asks the agent on its socket."""
    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        **node.document(),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": ADS_CLUSTER,
                            # The default doubles up to 30 s: an agent that restarts is waited for.
                            "retry_policy": {
                                "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}
                            },
                        }
                    }
                ],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": ADS_CLUSTER,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/"
                            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": ADS_CLUSTER,
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
                                ]
                            }
                        ],
                    },
                }
            ]
        },
    }


def for_files(node: Node, directory: Path) -> dict[str, Any]:
    """A bootstrap for an Envoy that watches files of the agent."""

    def source(name: str) -> dict[str, Any]:
        watched = {"path": str(directory / name), "watched_directory": {"path": str(directory)}}
        return {"path_config_source": watched, "resource_api_version": "V3"}

    return {
        **node.document(),
        "dynamic_resources": {
            "cds_config": source(CLUSTERS_FILE),
            "lds_config": source(LISTENERS_FILE),
        },
    }


def whole(node: Node, listeners: list[Any], clusters: list[Any]) -> dict[str, Any]:
    """A configuration that asks nobody."""
    return {**node.document(), "static_resources": {"listeners": listeners, "clusters": clusters}}


CLUSTERS_FILE: Final = "cds.json"
LISTENERS_FILE: Final = "lds.json"


def _socket_address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
