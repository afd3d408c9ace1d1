"""What a `kuma.io/service` is called under the legacy domain, and what may be served there."""

from __future__ import annotations

import re

from zonemesh.names import NAME_MAX, is_hostname

_LABEL = r"[a-z0-9_](?:[-a-z0-9_]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def is_legacy_name(text: str) -> bool:
    """A host name in lower case whose labels may hold underscores, as Kubernetes' services do.

    DNS carries any octets (RFC 2181 §11); it is clients that may refuse an underscore, for whom
    there is the dotted form.
    """
    return len(text) <= NAME_MAX and _NAME.fullmatch(text) is not None


def service_names(service: str, domain: str) -> tuple[str, ...]:
    """The names that a service may have, its own before the dotted one; none if none is valid.

    Lookups ignore case, so names are in lower case whatever the tag's. The dotted form is for
    clients that hold to RFC 1123, so that it must be a name by that rule.
    """
    base = service.lower()
    plain = f"{base}.{domain}"
    found = (plain,) if is_legacy_name(plain) else ()
    if "_" in base:
        dotted = f"{base.replace('_', '.')}.{domain}"
        if is_hostname(dotted):
            return (*found, dotted)
    return found
