"""What may be a name, and what a synced resource is called: RFC 1035, RFC 1123, Kuma's hash."""

from __future__ import annotations

import re

NAME_MAX = 253
"""Octets of a whole name: RFC 1035 §2.3.4's 255, less the first length octet and the root."""
LABEL_MAX = 63
"""Octets of one label (RFC 1035 §2.3.4)."""

_RESOURCE_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_HOST_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_DNS_LABELS = r"[a-z0-9_](?:[-a-z0-9_]{0,61}[a-z0-9_])?"
_DNS_NAME = re.compile(rf"{_DNS_LABELS}(?:\.{_DNS_LABELS})*")
_MESH_NAME = re.compile(r"[-0-9a-z_.]+")

_HASH_LENGTH = 16
_DISPLAY_MAX = NAME_MAX - _HASH_LENGTH - 1
# Kubernetes' "safe" alphabet: no vowels, so that no hash ever spells a word.
_SAFE = "bcdfghjklmnpqrstvwxz2456789"
_HEX_TO_SAFE = {ord(digit): _SAFE[ord(digit) % len(_SAFE)] for digit in "0123456789abcdef"}
_HASHED = re.compile(
    rf"(.{{1,{_DISPLAY_MAX}}})-([{''.join(sorted(set(_HEX_TO_SAFE.values())))}]{{{_HASH_LENGTH}}})"
)

_FNV64_OFFSET = 0xCBF29CE484222325
_FNV64_PRIME = 0x100000001B3
_U64 = 0xFFFFFFFFFFFFFFFF


def is_resource_name(text: str) -> bool:
    """Kuma's rule for any resource: looks like an RFC 1123 subdomain, labels of any length."""
    return len(text) <= NAME_MAX and _RESOURCE_NAME.fullmatch(text) is not None


def is_dns_label(text: str) -> bool:
    """An RFC 1035 label in lower case: what a service or a zone is called."""
    return len(text) <= LABEL_MAX and _DNS_LABEL.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """A name that can be served: RFC 1123 §2.1 in lower case, every label within 63 octets.

    Kuma does not hold labels to 63 octets and so accepts names that no resolver can ask for.
    """
    return len(text) <= NAME_MAX and _HOSTNAME.fullmatch(text) is not None


def is_dns_name(text: str) -> bool:
    """A name in lower case that can be looked up, its labels perhaps with underscores.

    Wider than a host's name (RFC 1123 §2.1): DNS carries any octets (RFC 2181 §11), and such names
    exist. It is clients that may refuse them.
    """
    return len(text) <= NAME_MAX and _DNS_NAME.fullmatch(text) is not None


def is_mesh_name(text: str) -> bool:
    """Kuma 2's rule; Kuma 3 narrows it to RFC 1035, which would refuse meshes that exist."""
    return len(text) <= LABEL_MAX and _MESH_NAME.fullmatch(text) is not None


def resource_name_fault(text: str) -> str | None:
    """Why `text` cannot name a resource; None if it can."""
    if len(text) > NAME_MAX:
        return f"must be no more than {NAME_MAX} characters"
    if is_resource_name(text):
        return None
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
        "'.', and must start and end with an alphanumeric character"
    )


def dns_label_fault(text: str) -> str | None:
    """Why `text` is not an RFC 1035 label; None if it is."""
    if len(text) > LABEL_MAX:
        return f"must be no more than {LABEL_MAX} characters"
    if is_dns_label(text):
        return None
    return (
        "a lowercase RFC 1035 label must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character"
    )


def mesh_name_fault(text: str) -> str | None:
    """Why `text` cannot name a mesh; None if it can."""
    if len(text) > LABEL_MAX:
        return f"must be no more than {LABEL_MAX} characters"
    if is_mesh_name(text):
        return None
    return "must consist of lower case alphanumeric characters, '-', '_' and '.'"


def hostname_fault(text: str) -> str | None:
    """Why `text` cannot be served as a name; None if it can."""
    if len(text) > NAME_MAX:
        return f"must be no more than {NAME_MAX} characters"
    if is_hostname(text):
        return None
    if any(len(label) > LABEL_MAX for label in text.split(".")):
        return f"every label must be no more than {LABEL_MAX} characters"
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
        "'.', and must start and end with an alphanumeric character"
    )


def hashed_name(mesh: str, display_name: str, zone: str, namespace: str) -> str:
    """What a resource is called on every control plane but the one that it was made on.

    Args:
        mesh: "" for kinds outside meshes.
        display_name: The name it was given; shortened so that the result stays within 253.
        zone: Where it was made; "" on global.
        namespace: "" outside Kubernetes.

    Source:
        Kuma's hash suffix: FNV-1a 64 over the parts without separators, in hex, made safe.
    """
    digest = fnv1a64(f"{mesh}{display_name}{zone}{namespace}".encode())
    return f"{display_name[:_DISPLAY_MAX]}-{format(digest, '016x').translate(_HEX_TO_SAFE)}"


def split_hashed(name: str) -> tuple[str, str] | None:
    """The display name (shortened, as in the name) and the hash; None if no hash can be there.

    A hit proves nothing: a user may call something so. Compare with `hashed_name` of a candidate.
    """
    match = _HASHED.fullmatch(name)
    return (match[1], match[2]) if match else None


def fnv1a64(data: bytes) -> int:
    """FNV-1a with 64 bits (RFC 9923), which Kuma's hashed names and notes are made with."""
    digest = _FNV64_OFFSET
    for octet in data:
        digest = ((digest ^ octet) * _FNV64_PRIME) & _U64
    return digest
