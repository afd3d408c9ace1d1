"""What travels where: a filter on reading, so that one log serves every reader."""

from __future__ import annotations

from collections.abc import Callable

from zonemesh.agents import AGENT
from zonemesh.draft import COUNTER
from zonemesh.ipam import BLOCK, pool_of
from zonemesh.labels import KDS_SYNC
from zonemesh.model import Key, Record, zone_of
from zonemesh.recovery import RECOVERY
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import SETTINGS

GLOBAL_LOG = "global"
"""Name of global's log, by which cursors into it are kept."""
SEEN = "zone.seen"
"""Kind of global's records of what it knows about a zone's control plane: key `/<zone>//`."""
NOT_MERGED = b"not merged"
"""In place of an entry's hash in such a record: what stands before the cursor is not in the state,
which only a snapshot beyond the cursor can mend. No entry has this hash, so that the zone, and
whoever reads its stream, finds the stream not to continue what is merged; the zone then publishes
such a snapshot."""
VERDICT = "zone.verdict"
"""Kind of global's answers about bindings that a zone may not keep; keys are the bindings', or of a
block `block_verdict`."""
GRACE = "grace"
"""Kind of a zone's notes when a service's last Dataplane went; keys are the service's."""
ZONE_STATE = "zone.state"
"""Kind of a zone's note about itself (UID, adopted or not): key `/<zone>//`."""
UNPROVEN = "unproven"
"""Kind of a zone's note that its log may lack something of it that is known elsewhere: key
`/<zone>//`."""
CANARY = "canary"
"""Kind of the records that zones change for no other reason than to see them arrive: key
`/<zone>//`. They travel as registrations do, and nobody is shown them."""
CONTENDER = "claim"
"""The writer's name under which whoever claims another's zone says so beside its stream
(`Store.present`): {uid, url, owner}."""
_KDS_SYNC = KDS_SYNC.encode()
INTERNAL = frozenset(
    {BLOCK, COUNTER, SETTINGS, SEEN, VERDICT, GRACE, RECOVERY, ZONE_STATE, UNPROVEN}
)


def up_log(zone: str) -> str:
    """Name of a zone's up stream."""
    return f"zone:{zone}:up"


def own_log(zone: str) -> str:
    """Name of a zone's own log."""
    return f"zone:{zone}:own"


def copy_log(holder: str) -> str:
    """Where a zone, or a global replica as "", offers the copy of global's log that it holds."""
    return f"zone:{holder}:copy" if holder else "global:copy"


def block_verdict(zone: str, pool: str, first: int) -> str:
    """The key of a verdict about a block: like its binding's, but of no mesh."""
    return Key("", zone, pool, f"block-{first}").packed


def goes_up(kind: str, key: str, zone: str) -> bool:
    """Whether a record of a zone's own log is copied to its up stream."""
    if zone_of(key) != zone or kind in INTERNAL:
        return False
    if kind in (AGENT, CANARY) or pool_of(kind) is not None:
        return True
    return kind in KINDS and KINDS[kind].up


def held_back(kind: str, payload: bytes | None) -> bool:
    """Whether a user keeps an object where it was made: `kuma.io/kds-sync: disabled`."""
    if payload is None or kind not in KINDS or _KDS_SYNC not in payload:
        return False
    return Record.unpack(payload).labels.get(KDS_SYNC) == "disabled"


def accepted_from_zone(kind: str) -> bool:
    """Whether global takes a kind from a zone; kinds it does not know are carried as bytes."""
    if kind in INTERNAL:
        return False
    return pool_of(kind) is not None or kind not in KINDS or KINDS[kind].up


def _reaches_zones(kind: str, *, made_on_global: bool) -> bool:
    declared = KINDS.get(kind)
    if declared is None:
        return False
    if made_on_global:
        return declared.down or kind == "Zone"
    # Dataplanes are not shown in other zones, but their addresses are endpoints there.
    return declared.across or kind == "Dataplane"


def kept_by(zone: str) -> Callable[[str, str], bool]:
    """What a zone keeps of global's log.

    Of its own records only what global adds to them (`order`), grants and verdicts: the rest is in
    its own log. Of other zones' what names, VIPs and endpoints are made of.
    """

    def keeps(kind: str, key: str) -> bool:
        origin = zone_of(key)
        if kind in INTERNAL:
            return kind in (SETTINGS, SEEN, RECOVERY) or (
                kind in (BLOCK, VERDICT) and origin == zone
            )
        if kind == CANARY:
            return True  # its own too: the way there and back
        pool = pool_of(kind)
        if pool is not None:
            # Others' addresses where what they are of is seen here; its own for their order.
            return origin in ("", zone) or pool not in KINDS or KINDS[pool].across
        return origin != zone and _reaches_zones(kind, made_on_global=origin == "")

    return keeps
