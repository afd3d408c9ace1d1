"""What a `kuma.io/service` is called under the legacy domain, and what may be served there."""

from __future__ import annotations

from zonemesh.names import is_dns_name, is_hostname


def service_names(service: str, domain: str) -> tuple[str, ...]:
    """The names that a service may have, its own before the dotted one; none if none is valid.

    Lookups ignore case, so names are in lower case whatever the tag's. The dotted form is for
    clients that hold to RFC 1123, so that it must be a name by that rule.
    """
    base = service.lower()
    plain = f"{base}.{domain}"
    found = (plain,) if is_dns_name(plain) else ()
    if "_" in base:
        dotted = f"{base.replace('_', '.')}.{domain}"
        if is_hostname(dotted):
            return (*found, dotted)
    return found
