"""The `status` of services in Kuma's shape, from what a control plane holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zonemesh.agents import AgentNote
from zonemesh.hostnames import MESH_MULTI_ZONE_SERVICE, MESH_SERVICE, Outcome, Reason
from zonemesh.ipam import Binding, ipv4_text, ipv6_text
from zonemesh.lostzones import Effect
from zonemesh.members import healthy
from zonemesh.model import Key, Record


def of_service(
    kind: str,
    *,
    binding: Binding | None,
    outcomes: Sequence[Outcome],
    shortage: str | None,
    members: Callable[[], Sequence[tuple[str, Record]]],
    matched: Callable[[], Sequence[Key]],
    agent: Callable[[str], AgentNote | None],
    effect: Effect = Effect.SERVED,
) -> dict[str, Any]:
    """`status` of a service of any kind; what the kind has no use for is not asked.

    Args: as of those of the kinds; `agent` gives that of the Dataplane with a packed key.
    """
    if kind == MESH_SERVICE:
        selected = members()
        agents = [agent(key) for key, _ in selected]
        return mesh_service(
            binding=binding,
            outcomes=outcomes,
            members=selected,
            connected=sum(each is not None and each.online for each in agents),
            shortage=shortage,
            effect=effect,
        )
    if kind == MESH_MULTI_ZONE_SERVICE:
        return mesh_multi_zone_service(
            binding=binding, outcomes=outcomes, matched=matched(), shortage=shortage
        )
    return mesh_external_service(binding=binding, outcomes=outcomes, shortage=shortage)


def mesh_service(
    *,
    binding: Binding | None,
    outcomes: Sequence[Outcome],
    members: Sequence[tuple[str, Record]],
    connected: int,
    shortage: str | None,
    effect: Effect = Effect.SERVED,
) -> dict[str, Any]:
    """`status` of a MeshService.

    Args:
        binding: Its address, if it has been given one.
        outcomes: What each generator did for it here.
        members: The Dataplanes that it selects.
        connected: How many of them have an agent right now.
        shortage: Why its pool has nothing left for it, if that is so.
        effect: What comes of it in other zones while its own is lost.
    """
    status: dict[str, Any] = {
        "addresses": _addresses(outcomes),
        "vips": _vips(binding),
        "tls": {"status": "NotReady"},
        "hostnameGenerators": [_condition(outcome) for outcome in outcomes],
        "dataplaneProxies": {
            "connected": connected,
            "healthy": sum(healthy(record) for _, record in members),
            "total": len(members),
        },
    }
    conditions = [] if status["vips"] else [_without_address(shortage)]
    if effect is not Effect.SERVED:
        conditions.append(_of_lost_zone(effect))
    if conditions:
        status["conditions"] = conditions
    return status


def mesh_external_service(
    *, binding: Binding | None, outcomes: Sequence[Outcome], shortage: str | None
) -> dict[str, Any]:
    """`status` of a MeshExternalService, whose address is one `vip` and not a list.

    Args: as of `mesh_service`.
    """
    vips = _vips(binding)
    status: dict[str, Any] = {
        "vip": vips[0] if vips else {},
        "addresses": _addresses(outcomes),
        "hostnameGenerators": [_condition(outcome) for outcome in outcomes],
    }
    if not vips:
        status["conditions"] = [_without_address(shortage)]
    return status


def mesh_multi_zone_service(
    *,
    binding: Binding | None,
    outcomes: Sequence[Outcome],
    matched: Sequence[Key],
    shortage: str | None,
) -> dict[str, Any]:
    """`status` of a MeshMultiZoneService; `matched` are the MeshServices that it stands for.

    Args: else as of `mesh_service`.
    """
    found = f"{len(matched)} MeshServices matched" if matched else "No MeshServices matched"
    conditions = [
        {
            "type": "MeshServicesMatched",
            "status": "True" if matched else "False",
            "reason": "MatchesFound" if matched else "NoMatchesFound",
            "message": found,
        }
    ]
    vips = _vips(binding)
    return {
        "addresses": _addresses(outcomes),
        "hostnameGenerators": [_condition(outcome) for outcome in outcomes],
        "vips": vips,
        "meshServices": [
            {"name": key.name, "namespace": key.namespace, "zone": key.zone, "mesh": key.mesh}
            for key in matched
        ],
        "conditions": conditions if vips else [*conditions, _without_address(shortage)],
    }


def _addresses(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            "hostname": outcome.hostname,
            "origin": "HostnameGenerator",
            "hostnameGeneratorRef": {"coreName": outcome.generator.name},
        }
        for outcome in outcomes
        if outcome.reason is Reason.GENERATED
    ]


def _vips(binding: Binding | None) -> list[dict[str, str]]:
    if binding is None or not binding.live or binding.address is None:
        return []
    return [{"ip": ipv4_text(binding.address)}, {"ip": ipv6_text(binding.address)}]


def _condition(outcome: Outcome) -> dict[str, Any]:
    generated = outcome.reason is Reason.GENERATED
    return {
        "hostnameGeneratorRef": {"coreName": outcome.generator.name},
        "conditions": [
            {
                "type": "Generated",
                "status": "True" if generated else "False",
                "reason": str(outcome.reason),
                "message": outcome.message,
            }
        ],
    }


def _of_lost_zone(effect: Effect) -> dict[str, str]:
    what = {
        Effect.UNAVAILABLE: "none of its endpoints is used by other zones",
        Effect.WITHDRAWN: "it has no name in other zones; its address stays its own",
    }
    return {
        "type": "ZoneOnline",
        "status": "False",
        "reason": f"ZoneLost{effect.value}",
        "message": f"global does not hear from its zone, and by its policy {what[effect]}",
    }


def _without_address(shortage: str | None) -> dict[str, str]:
    return {
        "type": "VIPAllocated",
        "status": "False",
        "reason": "Waiting" if shortage is None else "PoolExhausted",
        "message": shortage or "no address yet: waiting for a block of its pool",
    }
