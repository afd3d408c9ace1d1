"""What may stand in an address field: an IP address, or a name that can be looked up."""

from __future__ import annotations

import ipaddress

from zonemesh import names
from zonemesh.resources.validation import Node

NO_HOST = ("0.0.0.0", "::")  # noqa: S104 - refused, not bound to


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_domain(text: str) -> bool:
    """A name that a resolver can be asked for, in any case, with or without the root's dot."""
    name = text.lower().removesuffix(".")
    # A last label of digits makes it a mistyped IPv4 address (RFC 1123 §2.1).
    return names.is_dns_name(name) and not name.rpartition(".")[2].isdecimal()


def host_address(node: Node, name: str, *, required: bool = False) -> str | None:
    """An address field that says where a host is: an IP address or a name, not "everywhere"."""
    address = node.string(name, required=required)
    if address in NO_HOST:
        node.fault(name, "must not be 0.0.0.0 or ::")
    elif address is not None and not is_ip(address) and not is_domain(address):
        node.fault(name, "address has to be valid IP address or domain name")
    return address
