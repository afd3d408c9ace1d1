"""Legacy names after any changes, in any order, are what all records together say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.legacynames import POLICIES, SERVICE, dataplane, dp, index_of, packed, policy, service
from zonemesh.errors import InputError
from zonemesh.legacy import LegacyIndex
from zonemesh.legacynames import service_names
from zonemesh.model import Key, Record, zone_of
from zonemesh.registry import Registry
from zonemesh.template import TemplateError
from zonemesh.virtualoutbound import VirtualOutbound

SERVICES = ["a_b", "a.b", "A.B", "c"]
DATAPLANES = [
    *(dataplane(name) for name in SERVICES),
    dataplane("a_b", "c"),
    dataplane("c", gateway={"tags": {SERVICE: "a.b"}}),
    packed({"networking": {"inbound": [{"tags": {SERVICE: "c", "v": "1"}}]}}),
]
MODES = [packed({"meshServices": {"mode": mode}}) for mode in ("Exclusive", "Everywhere")]
PUTS = st.one_of(
    st.tuples(
        st.just("Dataplane"),
        st.sampled_from([dp("1"), dp("2", "east"), dp("3"), dp("4", mesh="m2")]),
        st.none() | st.sampled_from(DATAPLANES),
    ),
    st.tuples(
        st.just("VirtualOutbound"),
        st.sampled_from(["default///x", "default///y", "m2///x"]),
        st.none() | st.sampled_from(POLICIES),
    ),
    st.tuples(st.just("Mesh"), st.just("///default"), st.none() | st.sampled_from(MODES)),
)
Seen = dict[str, tuple[list[str], dict[int, tuple[str, tuple[str, ...]]]]]
"""By key: the names that it has, and by port the service and the Dataplanes."""


def seen(index: LegacyIndex) -> Seen:
    return {
        key: (
            index.names(key),
            {port.port: (port.service, port.dataplanes) for port in index.ports(key)},
        )
        for key in index.wanted()
    }


def zones_behind(ports: Mapping[int, tuple[str, tuple[str, ...]]]) -> set[str]:
    return {zone_of(key) for _, dataplanes in ports.values() for key in dataplanes}


class Recomputed:
    """The same by the rules as they are said, of all records at once."""

    def __init__(self, registry: Registry) -> None:
        self.services: defaultdict[str, set[str]] = defaultdict(set)
        self.claims: defaultdict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
        policies = []
        for key, payload in registry.table("VirtualOutbound").items():
            with suppress(InputError):
                policies.append(VirtualOutbound.parse(key, Record.unpack(payload)))
        for key, payload in registry.table("Dataplane").items():
            mesh = Key.parse(key).mesh
            if self._exclusive(registry, mesh):
                continue
            networking = Record.unpack(payload).spec["networking"]
            for tagged in networking.get("inbound", []):
                self.services[f"{mesh}//service/{tagged['tags'][SERVICE]}"].add(key)
                for each in policies:
                    if each.key.startswith(f"{mesh}/"):
                        self._claim(mesh, each, tagged["tags"], key)

    @staticmethod
    def _exclusive(registry: Registry, mesh: str) -> bool:
        return registry.get("Mesh", f"///{mesh}") == MODES[0]

    def _claim(self, mesh: str, policy: VirtualOutbound, tags: Mapping[str, str], key: str) -> None:
        try:
            rendered = policy.render(tags)
        except TemplateError:
            return
        if rendered is not None:
            closeness = tuple(-each for each in rendered.specificity)
            rank = (closeness, -policy.created_ms, policy.key, rendered.values)
            at = f"{mesh}//host/{rendered.host}", rendered.port
            self.claims[at].append((rank, tags[SERVICE], key))

    def winner(self, mesh: str, name: str) -> str:
        wanting: list[tuple[int, bool, str, str]] = []
        if any(host == f"{mesh}//host/{name}" for host, _ in self.claims):
            wanting.append((0, False, "", f"{mesh}//host/{name}"))
        for key in self.services:
            tag = Key.parse(key).name
            if Key.parse(key).mesh == mesh and name in service_names(tag, "mesh"):
                dotted = f"{tag.lower()}.mesh" != name
                wanting.append((2 if dotted else 1, tag != tag.lower() and not dotted, tag, key))
        return min(wanting)[3]

    def seen(self) -> Seen:
        result: Seen = {}
        for key, dataplanes in self.services.items():
            mesh, _, _, tag = key.split("/")
            names = service_names(tag, "mesh")
            has = [name for name in names if self.winner(mesh, name) == key]
            result[key] = has, {80: (tag, tuple(sorted(dataplanes)))}
        for (key, port), claims in self.claims.items():
            _, chosen, _ = min(claims)
            policy_key = min(claims)[0][2]
            behind = {dp for rank, tag, dp in claims if (rank[2], tag) == (policy_key, chosen)}
            ports = result.setdefault(key, ([Key.parse(key).name], {}))[1]
            ports[port] = chosen, tuple(sorted(behind))
        for key in {key for key, _ in self.claims}:
            self._keep_the_services_port(key, result)
        return result

    def _keep_the_services_port(self, key: str, result: Seen) -> None:
        mesh, _, _, host = key.split("/")
        hosts, self.claims = self.claims, defaultdict(list)
        with suppress(ValueError):  # (no service wants the name)
            chosen = self.winner(mesh, host)
            result[key][1].setdefault(80, result[chosen][1][80])
        self.claims = hosts


@given(st.lists(PUTS, max_size=25))
def test_any_changes_lead_to_what_all_records_together_say(
    puts: list[tuple[str, str, bytes | None]],
) -> None:
    registry = Registry()
    index = index_of(registry)
    before: Seen = {}

    for kind, key, payload in puts:
        if payload is not None or registry.get(kind, key) is not None:
            registry.put(kind, key, payload)
        touched = index.take()

        now = seen(index)
        assert now == Recomputed(registry).seen()
        # Whoever looks only at what was touched misses nothing.
        missing: tuple[list[str], dict[int, Any]] = ([], {})
        for each in now.keys() | before.keys():
            was, new = before.get(each, missing), now.get(each, missing)
            same = was[0] == new[0] and (each in now) == (each in before)
            assert same or each in touched.names, each
            assert was[1] == new[1] or each in touched.endpoints, each
        for zone in ("west", "east"):
            leading = {each for each, (_, ports) in now.items() if zone in zones_behind(ports)}
            assert leading <= set(index.leading_to(zone)) <= now.keys()
        before = now

    assert seen(index_of(registry)) == before


def test_a_host_that_keeps_a_services_port_leads_to_every_zone_of_that_service() -> None:
    registry = Registry()
    index = index_of(registry)
    registry.put("VirtualOutbound", "default///x", packed(policy("{{.svc}}.mesh", "8080", v="1")))
    tags = {SERVICE: "redis", "v": "1"}
    registry.put("Dataplane", dp("1"), packed({"networking": {"inbound": [{"tags": tags}]}}))
    registry.put("Dataplane", dp("2", "east"), dataplane("redis"))

    leading = set(index.leading_to("east"))

    assert leading == {service("redis"), "default//host/redis.mesh"}


@given(st.data())
def test_the_order_of_changes_does_not_matter(data: st.DataObject) -> None:
    puts = data.draw(st.lists(PUTS, max_size=12, unique_by=lambda put: put[:2]))
    puts = [put for put in puts if put[2] is not None]
    found = []

    for order in (puts, data.draw(st.permutations(puts))):
        registry = Registry()
        index = index_of(registry)
        for put in order:
            registry.put(*put)
        found.append(seen(index))

    assert found[0] == found[1]
