"""What a zone's two proxies, ingress and egress, have in common: where they listen."""

from __future__ import annotations

from zonemesh import names
from zonemesh.resources.addresses import host_address
from zonemesh.resources.validation import Node

PORT_REASON = "port has to be in range of [1, 65535]"


def listens(proxy: Node, name: str) -> Node | None:
    """Check a proxy's name, zone and own address; answers its `networking` for the rest."""
    proxy.fault_of_name(names.resource_name_fault(name))
    proxy.string("zone")
    networking = proxy.node("networking", required=True)
    if networking is None:
        return None
    host_address(networking, "address")
    port = networking.port("port", reason=PORT_REASON)
    admin = networking.node("admin")
    admin_port = None if admin is None else admin.port("port", reason=PORT_REASON, required=False)
    if admin is not None and admin_port is not None and admin_port == port:
        admin.fault("port", "must differ from networking.port")
    return networking
