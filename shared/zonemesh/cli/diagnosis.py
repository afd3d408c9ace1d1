"""What is wrong with a mesh, by what its parts say of themselves, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from zonemesh.cli.status import seconds
from zonemesh.runtime.values import format_duration

State = Mapping[str, Any]

SKEW_MAX_S = 2.0
LAG_MAX_S = 10.0
POOL_WARNING = 0.8
POOL_ERROR = 0.95

KEYS = {
    "legacy_cidrs": "dnsServer.CIDR",
    "naming.domain": "dnsServer.domain",
    "naming.port": "dnsServer.serviceVipPort",
    "naming.services": "dnsServer.serviceVipEnabled",
    "offline_after_ms": "zones.offlineAfter",
    "pools.MeshExternalService": "ipam.meshExternalService.cidr",
    "pools.MeshMultiZoneService": "ipam.meshMultiZoneService.cidr",
    "pools.MeshService": "ipam.meshService.cidr",
    "quarantine_ms": "ipam.quarantine",
    "quota_bytes": "zones.quota.bytes",
    "quota_services": "zones.quota.services",
    "stale_after_ms": "zones.staleAfter",
}
"""What a globalcp's configuration calls the mesh's settings."""


class Level(StrEnum):
    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    check: str
    """Stable: for programs."""
    where: str
    what: str
    remedy: str = ""


def fine(check: str, where: str, what: str) -> Finding:
    return Finding(Level.OK, check, where, what)


def of_plane(state: State, where: str) -> Iterator[Finding]:
    """What one control plane says of itself."""
    yield _ready(state, where)
    yield _reading(state, where)
    yield _agreeing(state, where)
    yield _lag(state, where)
    yield from _pools(state, where)
    yield from _of_zone(state, where) if "own" in state else _of_global(state, where)


def _ready(state: State, where: str) -> Finding:
    if why := state.get("ready"):
        return Finding(Level.ERROR, "ready", where, f"not ready: {why}", _RUNBOOKS)
    if why := state.get("stale"):
        return Finding(Level.WARNING, "ready", where, why, _RUNBOOKS)
    if blocked_s := state.get("blocked_s"):
        what = f"its log has taken no entry for {seconds(blocked_s)}"
        return Finding(Level.ERROR, "ready", where, what, "see that Redis (a zone: the disk) works")
    return fine("ready", where, "ready")


_RUNBOOKS = "find the words in docs/operations.md, Runbooks"


def _reading(state: State, where: str) -> Finding:
    if halted := state.get("halted"):
        what = f"stopped following its log: {halted}"
        return Finding(Level.ERROR, "log", where, what, "docs/operations.md, Reader halted")
    lost = {name: count for name, count in (state.get("resyncs") or {}).items() if count}
    if lost:
        told = ", ".join(f"{name} {count}" for name, count in sorted(lost.items()))
        what = f"had to load the log anew since it started: {told}"
        remedy = "find out what Redis lost: its persistence and its failovers"
        return Finding(Level.WARNING, "log", where, what, remedy)
    return fine("log", where, "follows its log without a break")


def _agreeing(state: State, where: str) -> Finding:
    if why := state.get("mismatch"):
        remedy = "docs/operations.md, States differ"
        return Finding(Level.ERROR, "state", where, f"its state is not its writer's: {why}", remedy)
    if count := state.get("mismatches"):
        what = f"its state was not its writer's {count} times, and was loaded anew"
        return Finding(Level.WARNING, "state", where, what, "suspect this host's memory")
    return fine("state", where, "its state is its writer's")


def _lag(state: State, where: str) -> Finding:
    lag_s = state.get("lag_s")
    if lag_s is None:
        what = "does not know yet how old what it holds is"
        return Finding(Level.WARNING, "lag", where, what, "ask again in a few seconds")
    if lag_s > LAG_MAX_S:
        what = f"what it holds of global's log is {seconds(lag_s)} old"
        remedy = "see that a global leads, and that this host reaches Redis"
        return Finding(Level.ERROR, "lag", where, what, remedy)
    return fine("lag", where, f"what it holds is {seconds(lag_s)} old")


def _pools(state: State, where: str) -> Iterator[Finding]:
    for shortage in state.get("shortages") or ():
        zone = shortage["zone"] or "global"
        what = f"{shortage['pool']} of {zone}: {shortage['why']}"
        remedy = "add a range, or delete zones that are gone: docs/operations.md, Pool exhausted"
        yield Finding(Level.ERROR, "pool", where, what, remedy)
    for pool, zones in (state.get("pools") or {}).items():
        waiting = sum(usage["waiting"] for usage in zones.values())
        if waiting:
            what = f"{waiting} services of {pool} wait for an address"
            remedy = "a global must lead and be reached: it leases blocks"
            yield Finding(Level.WARNING, "pool", where, what, remedy)
    for pool, size in (state.get("sizes") or {}).items():
        leased = sum(
            usage["used"] + usage["quarantined"] + usage["free"]
            for usage in state["pools"].get(pool, {}).values()
        )
        share = leased / size if size else 1.0
        what = f"{share:.0%} of {pool} is leased to zones"
        if share >= POOL_WARNING:
            level = Level.ERROR if share >= POOL_ERROR else Level.WARNING
            remedy = "add a range: docs/operations.md, Changing the address pools"
            yield Finding(level, "pool", where, what, remedy)
        else:
            yield fine("pool", where, what)


def _of_global(state: State, where: str) -> Iterator[Finding]:
    if state["leader"]:
        yield fine("leader", where, "leads")
    elif state.get("leader_url"):
        yield fine("leader", where, f"{state['leader_url']} leads")
    else:
        remedy = "start a globalcp, or see why none gets the lease: docs/operations.md, Leader lost"
        yield Finding(Level.ERROR, "leader", where, "nobody leads", remedy)
    yield _settings(state, where)
    yield from _formats(state, where)
    for zone, each in sorted((state.get("zones") or {}).items()):
        yield from _zone_heard(zone, each, where)


def _settings(state: State, where: str) -> Finding:
    differing = (state.get("settings") or {}).get("differs")
    if not differing:
        return fine("settings", where, "its configuration has the mesh's settings")
    told = "; ".join(
        f"{KEYS.get(name, name)} is {_setting(name, each['configured'])},"
        f" the mesh has {_setting(name, each['mesh'])}"
        for name, each in sorted(differing.items())
    )
    remedy = (
        "make it the same in every globalcp's configuration and restart them one after the other:"
        " if this one comes to lead, its own hold"
    )
    return Finding(Level.WARNING, "settings", where, f"its configuration differs: {told}", remedy)


def _setting(name: str, value: Any) -> str:
    if name.endswith("_ms") and isinstance(value, int):
        return format_duration(value / 1000)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _formats(state: State, where: str) -> Iterator[Finding]:
    formats = state.get("formats") or {}
    if behind := formats.get("heldBackBy"):
        what = (
            f"logs are written in format {formats['log']}, though {max(formats['readable'])} is"
            f" known here: {', '.join(behind)} cannot read that"
        )
        remedy = "upgrade them, or delete zones that are gone: docs/operations.md, Upgrade"
        yield Finding(Level.WARNING, "formats", where, what, remedy)


def _zone_heard(zone: str, each: Mapping[str, Any], where: str) -> Iterator[Finding]:
    lag_s = each.get("lagSeconds")
    if not each.get("online"):
        remedy = "see its zonecp and its link to Redis; if it is gone for good, delete the Zone"
        what = f"zone {zone} is offline, heard of {seconds(lag_s)} ago"
        yield Finding(Level.ERROR, "zone", where, what, remedy)
    elif lag_s is not None and lag_s > LAG_MAX_S:
        what = f"what is known of zone {zone} is {seconds(lag_s)} old"
        yield Finding(Level.WARNING, "zone", where, what, "see its link to Redis")
    else:
        yield fine("zone", where, f"zone {zone} was heard of {seconds(lag_s)} ago")
    if count := each.get("rejectedRecords"):
        what = f"{count} records of zone {zone} were rejected"
        remedy = "log record_rejected of global's leader names them; do the versions differ?"
        yield Finding(Level.WARNING, "rejected", where, what, remedy)
    if count := each.get("bindingConflicts"):
        what = f"{count} addresses of zone {zone} were another zone's, and were changed"
        remedy = "was an old backup of a zone started? docs/operations.md, Binding conflict"
        yield Finding(Level.WARNING, "conflict", where, what, remedy)


def _of_zone(state: State, where: str) -> Iterator[Finding]:
    if not state.get("adopted", True):
        what = "waits for global's copy of its registrations, and binds nothing until then"
        remedy = "see that it reaches global's Redis, and that nobody else runs this zone"
        yield Finding(Level.ERROR, "adopted", where, what, remedy)
    if why := state.get("uplink_refused"):
        remedy = "docs/operations.md, A zone's stream takes nothing"
        yield Finding(Level.ERROR, "uplink", where, f"its stream takes nothing: {why}", remedy)
    elif state.get("federated"):
        yield fine("uplink", where, "its stream takes what is written")
    if count := state.get("renumbered"):
        what = f"gave up {count} addresses to other zones since it started"
        yield Finding(Level.WARNING, "conflict", where, what, "was an old backup started here?")


def of_clocks(skews_s: Mapping[str, float]) -> Iterator[Finding]:
    """`skews_s`: how far each place's clock is ahead of this host's."""
    if len(skews_s) == 0:
        return
    places = {**skews_s, "this host": 0.0}
    first, last = min(places, key=places.__getitem__), max(places, key=places.__getitem__)
    apart_s = places[last] - places[first]
    if apart_s > SKEW_MAX_S:
        what = f"{last} is {apart_s:.1f} s ahead of {first}"
        remedy = "run NTP; nothing unsafe follows, but times that are shown are wrong"
        yield Finding(Level.WARNING, "clocks", last, what, remedy)
    else:
        yield fine("clocks", "all hosts", f"clocks are within {max(apart_s, 0.1):.1f} s")


def of_versions(states: Mapping[str, State]) -> Iterator[Finding]:
    versions: dict[str, list[str]] = {}
    for where, state in states.items():
        versions.setdefault(str(state.get("version", "?")), []).append(where)
    if len(versions) > 1:
        what = "; ".join(f"{version}: {', '.join(at)}" for version, at in sorted(versions.items()))
        remedy = "finish the upgrade: docs/operations.md, Upgrade"
        yield Finding(Level.WARNING, "versions", "all", what, remedy)


def of_replicas(states: Mapping[str, State]) -> Iterator[Finding]:
    """Globals at one place of the log must hold one state."""
    digests: dict[str, dict[str, str]] = {}
    for where, state in states.items():
        if "own" not in state:
            digests.setdefault(state["cursor"], {})[where] = state["digest"]
    for cursor, found in digests.items():
        if len(set(found.values())) > 1:
            what = f"at {cursor} {' and '.join(sorted(found))} hold different states"
            remedy = "docs/operations.md, States differ"
            yield Finding(Level.ERROR, "state", "globals", what, remedy)


def of_agent(status: Mapping[str, Any], where: str) -> Iterator[Finding]:
    held = status.get("map") or {}
    if not held.get("loaded"):
        remedy = "it answers SERVFAIL: see that its zone is ready and that it reaches it"
        yield Finding(Level.ERROR, "agent", where, "has no map", remedy)
        return
    age_s = held.get("age_s")
    if age_s is None:
        what = "serves the map of its disk; its zone has not been heard since the start"
        yield Finding(Level.ERROR, "agent", where, what, "see that its zone answers")
    elif age_s > 3 * LAG_MAX_S or not held.get("connected"):
        what = f"its map is {seconds(age_s)} old"
        yield Finding(Level.WARNING, "agent", where, what, "see that its zone answers")
    else:
        what = f"its map of {held.get('names')} names is {seconds(age_s)} old"
        yield fine("agent", where, what)
    if why := held.get("mismatch"):
        remedy = "docs/operations.md, States differ"
        yield Finding(Level.ERROR, "agent", where, f"its map is not its zone's: {why}", remedy)


def exit_code(findings: Sequence[Finding]) -> int:
    """0: nothing is wrong; 1: something should be looked at; 2: something does not work."""
    levels = {each.level for each in findings}
    if Level.ERROR in levels:
        return 2
    return 1 if levels & {Level.WARNING, Level.UNKNOWN} else 0
