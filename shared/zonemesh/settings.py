"""What decisions depend on besides records: replicated, so that every replica decides alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgpack

from zonemesh.errors import WireError
from zonemesh.ipam import Pool, check_pools
from zonemesh.legacy import Naming
from zonemesh.legacypool import LEGACY, LEGACY_CIDR

SETTINGS = "settings"
"""Kind of the settings records: key `///` is global's (copied to zones), `/<zone>//` a zone's."""
GLOBAL_KEY = "///"
_STALE_AFTER_MS = 5_000
POOLS = {
    "MeshService": ("241.0.0.0/8",),
    "MeshExternalService": ("242.0.0.0/8",),
    "MeshMultiZoneService": ("243.0.0.0/8",),
}
FORMER_MAX = 32
"""Removed ranges that are remembered of each pool."""
QUOTA_SERVICES = 250_000
"""Two and a half times what a zone is measured with (docs/benchmarks.md)."""
QUOTA_BYTES = 512 << 20
"""A million records of the usual size."""


def zone_key(zone: str) -> str:
    return f"/{zone}//"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One authority for a whole mesh of zones: global's values hold everywhere."""

    pools: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(POOLS))
    """CIDRs by pool; a pool is named as the kind whose objects it serves."""
    former: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """CIDRs that were removed from a pool: what is bound in them stays and nothing new is."""
    quarantine_ms: int = 24 * 3600 * 1000
    """Log time that a released address rests before another key may have it."""
    offline_after_ms: int = 10_000
    """Log time without a heartbeat after which a zone counts as offline."""
    stale_after_ms: int = _STALE_AFTER_MS
    """What a zone may be silent, or behind by its own report, before it counts as stale."""
    grace_ms: int = 3600 * 1000
    """A zone's own: log time that a generated service outlives its last Dataplane."""

    propagate: tuple[str, ...] | None = None
    """A zone's own: keys of the labels that generated services take over from their Dataplanes;
    empty for all, None for none."""

    legacy_cidrs: tuple[str, ...] = (LEGACY_CIDR,)
    """`dnsServer.CIDR`: where legacy names have their addresses, without what other pools have."""
    naming: Naming = field(default_factory=Naming)
    """The rest of `dnsServer`: how legacy names are made."""
    quota_services: int = QUOTA_SERVICES
    """Services that global takes from a zone; labels of the Zone say otherwise of one."""
    quota_bytes: int = QUOTA_BYTES
    """Bytes of records, with their keys, that global takes from a zone; likewise."""

    def pool(self, name: str) -> Pool:
        # One that whoever wrote the settings did not know yet is as by default.
        return Pool(name, self.pools.get(name) or POOLS[name])

    def former_pool(self, name: str) -> Pool:
        """Where blocks may still be held that the pool gives out no more.

        Also the usual ranges: a zone that stood alone has leased itself blocks of them.
        """
        now = self.pools.get(name, ())
        every = [*self.former.get(name, ()), *POOLS.get(name, ())]
        return Pool(name, tuple(dict.fromkeys(cidr for cidr in every if cidr not in now)))

    def following(self, before: Settings) -> Settings:
        """These, with the ranges remembered that they do not have any more."""
        former = {}
        then = {**before.pools, LEGACY: before.legacy_cidrs}
        current = {**self.pools, LEGACY: self.legacy_cidrs}
        for name in sorted({*before.former, *then}):
            now = current.get(name, ())
            every = (*before.former.get(name, ()), *then.get(name, ()))
            kept = tuple(dict.fromkeys(cidr for cidr in every if cidr not in now))
            if kept:
                former[name] = kept[-FORMER_MAX:]
        return replace(self, former=former)

    def unusual_ranges(self) -> Mapping[str, Sequence[str]]:
        """CIDRs by pool, now and formerly, beyond those that every mesh knows of."""
        usual = {**POOLS, LEGACY: (LEGACY_CIDR,)}
        now = {**self.pools, LEGACY: self.legacy_cidrs}
        found = {}
        for name in sorted({*now, *self.former}):
            every = dict.fromkeys((*self.former.get(name, ()), *now.get(name, ())))
            found[name] = [cidr for cidr in every if cidr not in usual.get(name, ())]
        return {name: cidrs for name, cidrs in found.items() if cidrs}

    def remembering(self, ranges: Mapping[str, Iterable[str]]) -> Settings:
        """These, with ranges remembered that lost settings have had, by somebody's copy of them.

        Of foreign origin: what is no IPv4 range is left out.
        """
        former = {
            name: (*filter(_readable, ranges.get(name, ())), *self.former.get(name, ()))
            for name in {*self.former, *ranges}
        }
        return self.following(replace(self, former=former))

    def changed_from(self, before: Settings) -> dict[str, tuple[Any, Any]]:
        """What is otherwise than before, by name: what it was, and what it is."""
        then, now = _flat(asdict(before)), _flat(asdict(self))
        return {
            name: (then.get(name), now.get(name))
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name) and not name.startswith("former.")
        }

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(
            {
                "pools": {name: list(self.pools[name]) for name in sorted(self.pools)},
                "former": {name: list(self.former[name]) for name in sorted(self.former)},
                "quarantine_ms": self.quarantine_ms,
                "offline_after_ms": self.offline_after_ms,
                "stale_after_ms": self.stale_after_ms,
                "grace_ms": self.grace_ms,
                "propagate": self.propagate,
                "legacy_cidrs": list(self.legacy_cidrs),
                "naming": asdict(self.naming),
                "quota_services": self.quota_services,
                "quota_bytes": self.quota_bytes,
            }
        )
        return packed

    @staticmethod
    def unpack(payload: bytes) -> Settings:
        return _unpack(payload)


def _readable(cidr: str) -> bool:
    return not check_pools([Pool("", (cidr,))])


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found.update({f"{name}.{key}": each for key, each in value.items()})
        else:
            found[name] = value
    return found


def _naming(fields: Mapping[str, Any]) -> Naming:
    known = ("domain", "port", "services")
    return Naming(**{name: fields[name] for name in known if name in fields})


@lru_cache(maxsize=8)  # asked for with every entry
def _unpack(payload: bytes) -> Settings:
    try:
        fields = msgpack.unpackb(payload)
        return Settings(
            pools={name: tuple(cidrs) for name, cidrs in fields["pools"].items()},
            former={name: tuple(cidrs) for name, cidrs in fields.get("former", {}).items()},
            quarantine_ms=int(fields["quarantine_ms"]),
            offline_after_ms=int(fields["offline_after_ms"]),
            grace_ms=int(fields["grace_ms"]),
            # Logs of before have none of these.
            stale_after_ms=int(fields.get("stale_after_ms", _STALE_AFTER_MS)),
            propagate=None if (keys := fields.get("propagate")) is None else tuple(keys),
            legacy_cidrs=tuple(fields.get("legacy_cidrs", (LEGACY_CIDR,))),
            naming=_naming(fields.get("naming", {})),
            quota_services=int(fields.get("quota_services", QUOTA_SERVICES)),
            quota_bytes=int(fields.get("quota_bytes", QUOTA_BYTES)),
        )
    except (AttributeError, KeyError, ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"malformed settings: {error!r}") from error
