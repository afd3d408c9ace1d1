"""What a file of `zonemesh snapshot save` holds, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from zonemesh.errors import WireError
from zonemesh.ipam import BLOCK, Binding, Block, pool_of
from zonemesh.log import backupfile
from zonemesh.log.backup import state_of
from zonemesh.log.backupfile import Backup
from zonemesh.model import Key, zone_of
from zonemesh.registry import Registry
from zonemesh.travel import GLOBAL_LOG

_WIDTH = 14


async def facts_of(backup: Backup, octets: int) -> dict[str, Any]:
    """All facts about a file of so many octets.

    Raises:
        WireError: What it holds is not what its digests say.
    """
    registry, sealed = await state_of(backup)
    zone = None if backup.log == GLOBAL_LOG else backup.log.split(":")[1]
    return {
        "log": backup.log,
        "zone": zone,
        "meshes": sorted(Key.parse(key).name for key in registry.table("Mesh")),
        "zones": sorted(
            {zone_of(key) for table in registry.tables.values() for key in table} - {""}
        ),
        "incarnation": registry.incarnation,
        "position": str(registry.position),
        "writtenAt": _time(sealed.entry.time_ms),
        "savedAt": _time(backup.saved_ms),
        "savedBy": backup.version,
        "formats": {"file": backupfile.FORMAT, "log": registry.format},
        "octets": octets,
        "digest": registry.digest,
        "records": len(registry),
        "kinds": {kind: len(table) for kind, table in sorted(registry.tables.items()) if table},
        "blocks": dict(sorted(_blocks(registry).items())),
        "bindings": dict(sorted(_bindings(registry).items())),
    }


def shown(facts: Mapping[str, Any]) -> str:
    """For people."""
    return "\n".join(_lines(facts))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    formats = facts["formats"]
    for label, text in (
        ("log", facts["log"]),
        ("meshes", ", ".join(facts["meshes"])),
        ("zones", ", ".join(facts["zones"])),
        ("incarnation", facts["incarnation"]),
        ("position", f"{facts['position']}, written {facts['writtenAt']}"),
        ("saved", f"{facts['savedAt']} by zonemesh {facts['savedBy']}"),
        ("formats", ", ".join(f"{name} {number}" for name, number in formats.items())),
        ("octets", str(facts["octets"])),
        ("digest", f"verified, {facts['digest']}"),
        ("records", str(facts["records"])),
    ):
        yield f"{label:{_WIDTH}}{text or '-'}"
    for title in ("kinds", "blocks", "bindings"):
        if not facts[title]:
            continue
        yield f"{title}:"
        width = max(map(len, facts[title]))
        for name, count in facts[title].items():
            yield f"  {name:{width}}  {count}"


def _blocks(registry: Registry) -> Counter[str]:
    """By the zone that holds them; of deleted zones as `retired`."""
    found: Counter[str] = Counter()
    for key, payload in registry.table(BLOCK).items():
        found["(retired)" if Block.unpack(payload).retired else zone_of(key)] += 1
    return found


def _bindings(registry: Registry) -> Counter[str]:
    """By pool and what the address does."""
    found: Counter[str] = Counter()
    for kind, table in registry.tables.items():
        if (pool := pool_of(kind)) is None:
            continue
        for payload in table.values():
            found[f"{pool} {_doing(payload)}"] += 1
    return found


def _doing(payload: bytes) -> str:
    try:
        binding = Binding.unpack(payload)
    except WireError:
        return "unreadable"
    if binding.live:
        return "bound"
    return "waiting" if binding.address is None else "resting"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
