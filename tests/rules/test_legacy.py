"""Legacy names: which exist, who of two has one, what stands behind it, and its address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.maps import ingress
from zonemesh.endpoints import Ingresses, Place
from zonemesh.errors import InputError, PoolExhaustedError
from zonemesh.ipam import Binding, Ledger, ipv4_text, parse_ipv4
from zonemesh.legacy import LegacyIndex, Naming, legacy_names_enabled
from zonemesh.legacynames import service_names
from zonemesh.legacyoutbounds import Surroundings, outbound, outbound_ids
from zonemesh.legacypool import (
    LEGACY,
    LEGACY_VIP,
    LegacyAllocation,
    check_legacy_pool,
    ranges_without,
    rebind,
)
from zonemesh.model import Change, Key, Record, zone_of
from zonemesh.registry import Registry
from zonemesh.template import TemplateError
from zonemesh.virtualoutbound import VirtualOutbound

SERVICE = "kuma.io/service"
POOLS = ("241.0.0.0/8", "242.0.0.0/8", "243.0.0.0/8")
DAY_MS = 24 * 3600 * 1000


def packed(spec: Mapping[str, Any], created_ms: int = 1) -> bytes:
    return Record(created_ms=created_ms, modified_ms=created_ms, spec=spec).pack()


def dataplane(*services: str, address: str = "10.0.0.1", **networking: Any) -> bytes:
    inbound = [
        {"port": 8080 + at, "tags": {SERVICE: service}} for at, service in enumerate(services)
    ]
    return packed({"networking": {"address": address, "inbound": inbound, **networking}})


def dp(name: str, zone: str = "west", mesh: str = "default") -> str:
    return Key(mesh, zone, "", name).packed


def service(name: str) -> str:
    return f"default//service/{name}"


def index_of(registry: Registry, naming: Naming | None = None) -> LegacyIndex:
    index = LegacyIndex(naming)
    index.attach(registry)
    return index


def mesh_of(*services: str) -> tuple[Registry, LegacyIndex]:
    """A mesh with a Dataplane, named alike, for each of some services."""
    registry = Registry()
    for name in services:
        registry.put("Dataplane", dp(name), dataplane(name))
    return registry, index_of(registry)


# Names


@pytest.mark.parametrize(
    "tag, names",
    [
        ("redis", ("redis.mesh",)),
        ("Redis", ("redis.mesh",)),
        (
            "echo-server_echo-example_svc_1010",
            ("echo-server_echo-example_svc_1010.mesh", "echo-server.echo-example.svc.1010.mesh"),
        ),
        ("a.b", ("a.b.mesh",)),
        ("_a", ("_a.mesh",)),  # no label may be empty
        ("a__b", ("a__b.mesh",)),
        ("a_-b", ("a_-b.mesh",)),
        ("a" * 63, ("a" * 63 + ".mesh",)),
        ("a" * 64, ()),
        ("a" * 40 + "_" + "b" * 40, ("a" * 40 + "." + "b" * 40 + ".mesh",)),
        ("-a", ()),
        ("a..b", ()),
        (".".join(["a" * 62] * 4), ()),  # 256 octets with the domain
    ],
)
def test_the_names_of_a_service(tag: str, names: tuple[str, ...]) -> None:
    assert service_names(tag, "mesh") == names


def test_the_domain_and_the_port_are_configurable() -> None:
    registry = Registry()
    registry.put("Dataplane", dp("a"), dataplane("a_b"))
    index = index_of(registry, Naming(domain="corp.lan", port=8080))

    assert index.names(service("a_b")) == ["a_b.corp.lan", "a.b.corp.lan"]
    assert [port.port for port in index.ports(service("a_b"))] == [8080]


def test_without_service_vips_only_virtual_outbounds_make_names() -> None:
    registry = Registry()
    registry.put("Dataplane", dp("a"), dataplane("redis"))
    registry.put("VirtualOutbound", "default///vo", POLICIES[0])
    index = index_of(registry, Naming(services=False))

    assert list(index.wanted()) == ["default//host/redis.mesh"]
    assert index.contenders("default", "redis.mesh") == ["default//host/redis.mesh"]
    assert [port.port for port in index.ports("default//host/redis.mesh")] == [8080]


@pytest.mark.parametrize(
    "services, name, contenders",
    [
        (("a_b", "a.b"), "a.b.mesh", ("a.b", "a_b")),
        (("a_b", "A.B"), "a.b.mesh", ("A.B", "a_b")),
        (("a_b.c", "a.b_c"), "a.b.c.mesh", ("a.b_c", "a_b.c")),
        (("REDIS", "redis", "Redis"), "redis.mesh", ("redis", "REDIS", "Redis")),
        (("A_b", "a.B"), "a.b.mesh", ("a.B", "A_b")),
        (("a_b",), "a_b.mesh", ("a_b",)),
        (("a_b",), "a_b", ()),
    ],
)
def test_who_of_two_services_has_a_name_does_not_depend_on_the_order(
    services: tuple[str, ...], name: str, contenders: tuple[str, ...]
) -> None:
    for order in (services, services[::-1]):
        _, index = mesh_of(*order)

        found = index.contenders("default", name)

        assert found == [service(each) for each in contenders]
        for loser in found[1:]:
            (conflict,) = index.conflicts(loser)
            assert conflict == (name, None, found[0], loser)


def test_a_dotted_name_falls_to_the_next_when_its_service_goes() -> None:
    registry, index = mesh_of("a_b", "a.b")
    assert index.names(service("a_b")) == ["a_b.mesh"]
    index.take()

    registry.put("Dataplane", dp("a.b"), None)

    assert index.take().names == {service("a_b"), service("a.b")}
    assert index.names(service("a_b")) == ["a_b.mesh", "a.b.mesh"]
    assert index.conflicts(service("a_b")) == []
    assert index.conflicts(service("a.b")) == []
    assert index.names(service("a.b")) == []


# Which exist


def test_a_service_of_several_zones_has_one_name_until_the_last_dataplane_goes() -> None:
    registry = Registry()
    index = index_of(registry)
    registry.put("Dataplane", dp("a", "east"), dataplane("redis"))
    registry.put("Dataplane", dp("a", "west"), dataplane("redis"))
    assert index.take().names == {service("redis")}
    (port,) = index.ports(service("redis"))
    assert port.dataplanes == (dp("a", "east"), dp("a", "west"))

    registry.put("Dataplane", dp("a", "east"), None)
    touched = index.take()
    assert (touched.names, touched.endpoints) == (set(), {service("redis")})
    assert index.wants(service("redis"))

    registry.put("Dataplane", dp("a", "west"), None)
    assert index.take().names == {service("redis")}
    assert not index.wants(service("redis"))
    assert index.ports(service("redis")) == []


@pytest.mark.parametrize(
    "spec, services",
    [
        ({"inbound": [{"tags": {SERVICE: "a"}}, {"tags": {SERVICE: "b"}}]}, {"a", "b"}),
        ({"inbound": [{"tags": {SERVICE: "a"}}, {"tags": {SERVICE: "a"}}]}, {"a"}),
        # As in Kuma: nothing in the mesh connects to a gateway.
        ({"gateway": {"tags": {SERVICE: "edge"}}}, set()),
        ({"inbound": [{"tags": {SERVICE: "a"}, "state": "Ignored"}]}, set()),
        ({"inbound": [{"tags": {SERVICE: "a"}, "state": "NotReady"}]}, {"a"}),
        ({"inbound": [{"port": 1}]}, set()),
        ({"inbound": [{"tags": {SERVICE: "a" * 64}}]}, set()),
        # what another build may have stored
        ({"inbound": [{"tags": {SERVICE: 7, "b": 1}}]}, set()),
        ({"inbound": [{"tags": {SERVICE: "a/b"}}]}, set()),
        ({"inbound": [{"tags": [SERVICE]}]}, set()),
        ({}, set()),
    ],
)
def test_which_services_a_dataplane_names(spec: dict[str, Any], services: set[str]) -> None:
    registry = Registry()
    registry.put("VirtualOutbound", "default///vo", POLICIES[1])
    index = index_of(registry)

    registry.put("Dataplane", dp("a"), packed({"networking": spec}))

    assert {key for key in index.wanted() if "/service/" in key} == set(map(service, services))
    registry.put("Dataplane", dp("a"), None)
    assert not list(index.wanted())


@pytest.mark.parametrize(
    "mode, enabled",
    [
        (None, True),
        ("Disabled", True),
        ("Everywhere", True),
        ("ReachableBackends", True),
        ("Exclusive", False),
    ],
)
def test_the_mode_of_a_mesh_decides_whether_it_has_legacy_names(
    mode: str | None, enabled: bool
) -> None:
    registry, index = mesh_of("redis")
    index.take()

    registry.put("Mesh", "///default", packed({"meshServices": {"mode": mode}} if mode else {}))

    assert legacy_names_enabled(mode) == enabled
    assert index.wants(service("redis")) == enabled
    assert bool(list(index.wanted())) == enabled
    assert bool(index.contenders("default", "redis.mesh")) == enabled
    assert bool(index.take().names) != enabled  # only a mode that takes the names changes them
    registry.put("Mesh", "///default", None)
    assert index.wants(service("redis"))


def test_globals_mesh_counts_before_a_zones_own() -> None:
    registry, index = mesh_of("redis")
    registry.put("Mesh", "/west//default", packed({"meshServices": {"mode": "Exclusive"}}))
    assert not index.wants(service("redis"))

    registry.put("Mesh", "///default", packed({}))

    assert index.wants(service("redis"))


def test_meshes_do_not_share_names() -> None:
    registry = Registry()
    registry.put("Dataplane", dp("a", mesh="one"), dataplane("redis"))
    index = index_of(registry)

    assert index.contenders("one", "redis.mesh") == ["one//service/redis"]
    assert index.contenders("two", "redis.mesh") == []
    assert not index.wants("two//service/redis")


def test_a_zone_sees_its_own_dataplanes_in_its_own_log_only() -> None:
    own, copy = Registry(), Registry()
    copy.put("Dataplane", dp("old", "west"), dataplane("gone"))
    copy.put("Dataplane", dp("far", "east"), dataplane("redis"))
    own.put("Dataplane", dp("near", "west"), dataplane("redis"))
    index = LegacyIndex()
    index.attach(own, lambda key: zone_of(key) == "west")
    index.attach(copy, lambda key: zone_of(key) != "west")

    # A policy of one registry renders the Dataplanes of both.
    copy.put("VirtualOutbound", "default///vo", POLICIES[0])

    host = "default//host/redis.mesh"
    assert set(index.wanted()) == {service("redis"), host}
    assert index.ports(host)[0].dataplanes == (dp("far", "east"), dp("near", "west"))


def test_a_heartbeat_of_a_dataplane_touches_no_name() -> None:
    registry, index = mesh_of("redis")
    index.take()

    registry.put("Dataplane", dp("redis"), dataplane("redis", address="10.0.0.2"))

    touched = index.take()
    assert (touched.names, touched.endpoints) == (set(), {service("redis")})
    assert not index.take()


# Any changes, in any order


def policy(host: str, port: str, **match: str) -> dict[str, Any]:
    selector = {SERVICE: "*", **match}
    parameters = [{"name": "svc", "tagKey": SERVICE}]
    return {
        "selectors": [{"match": selector}],
        "conf": {"host": host, "port": port, "parameters": parameters},
    }


POLICIES = [
    packed(policy("{{.svc}}.mesh", "8080"), created_ms=1),
    packed(policy("{{.svc}}.corp", "80"), created_ms=2),
    packed(policy("all.corp", "80"), created_ms=3),
    packed(policy("{{.svc}}.corp", "80", v="1"), created_ms=1),
    packed({"selectors": "broken"}),
]
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


# The pool


def text_ranges(cidrs: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """(first, last) of each range."""
    return [
        (ipv4_text(first), ipv4_text(first + size - 1))
        for first, size in ranges_without(cidrs, others)
    ]


@pytest.mark.parametrize(
    "cidrs, others, left",
    [
        (
            ["240.0.0.0/4"],
            POOLS,
            [("240.0.0.0", "240.255.255.255"), ("244.0.0.0", "255.255.255.254")],
        ),
        (["240.0.0.0/4"], ["0.0.0.0/0"], []),
        (["10.0.0.0/28"], POOLS, [("10.0.0.0", "10.0.0.15")]),
        (["10.0.0.0/28"], ["10.0.0.4/30"], [("10.0.0.0", "10.0.0.3"), ("10.0.0.8", "10.0.0.15")]),
        (["10.0.1.0/24", "10.0.0.0/24"], [], [("10.0.0.0", "10.0.1.255")]),
        (["255.255.255.255/32"], [], []),
        ([], [], []),
    ],
)
def test_what_is_left_for_legacy_names(
    cidrs: list[str], others: list[str], left: list[tuple[str, str]]
) -> None:
    assert text_ranges(cidrs, others) == left


@pytest.mark.parametrize(
    "cidrs, others, faults",
    [
        (["240.0.0.0/4"], POOLS, []),
        (["240.0.0.0/4"], ["nonsense"], []),  # said by the other pool
        (
            ["x", "fd00::/64"],
            POOLS,
            ["'x' is not a CIDR", "fd00::/64 must be IPv4; IPv6 is derived from it"],
        ),
        (["241.1.0.0/16"], POOLS, ["241.1.0.0/16: nothing is left without the other pools"]),
        ([], [], ["no CIDR: nothing is left without the other pools"]),
    ],
)
def test_the_faults_of_a_pool(cidrs: list[str], others: list[str], faults: list[str]) -> None:
    assert check_legacy_pool(cidrs, others) == [f"dnsServer.CIDR: {fault}" for fault in faults]


class Pool:
    """The bindings of one pool, as global decides them entry by entry."""

    def __init__(self, *cidrs: str, quarantine_ms: int = DAY_MS) -> None:
        self.ranges = ranges_without(cidrs, ())
        self.quarantine_ms = quarantine_ms
        self.ledger = Ledger(LEGACY)
        self.registry = Registry(indexes=[self.ledger])
        self.wanted: set[str] = set()
        self.now_ms = 0
        self.errors: list[PoolExhaustedError] = []

    def set(self, *services: str, after_ms: int = 0) -> list[Change]:
        """Exactly these services exist from now on."""
        self.now_ms += after_ms
        wanted = set(map(service, services))
        touched = [*(wanted ^ self.wanted), *self.ledger.waiting[""]]
        self.wanted = wanted
        allocation = LegacyAllocation(
            self.ledger, self.ranges, log_time_ms=self.now_ms, quarantine_ms=self.quarantine_ms
        )
        changes, self.errors = rebind(
            touched,
            wants=wanted.__contains__,
            held=lambda key: self.registry.get(LEGACY_VIP, key),
            allocation=allocation,
            log_time_ms=self.now_ms,
        )
        for change in changes:
            self.registry.put(*change)
        return changes

    def binding(self, name: str) -> Binding | None:
        payload = self.registry.get(LEGACY_VIP, service(name))
        return None if payload is None else Binding.unpack(payload)

    def address(self, name: str) -> int | None:
        binding = self.binding(name)
        return binding.address if binding is not None and binding.live else None

    def live(self) -> dict[str, int]:
        found = {key: Binding.unpack(each) for key, each in self.registry.table(LEGACY_VIP).items()}
        return {
            key: binding.address
            for key, binding in found.items()
            if binding.live and binding.address is not None
        }


def test_the_address_of_a_name_is_the_same_everywhere_and_always() -> None:
    pool = Pool("240.0.0.0/8")

    pool.set("redis")

    # A golden value: that every process finds the same cannot be seen from inside one.
    assert pool.address("redis") == parse_ipv4("240.171.40.251")


@pytest.mark.parametrize("cidrs", [("10.0.0.0/28",), ("10.0.0.0/29", "10.9.0.0/29")])
def test_a_small_pool_is_used_to_its_last_address(cidrs: tuple[str, ...]) -> None:
    pool = Pool(*cidrs)
    names = [f"s{number}" for number in range(16)]
    for count in range(17):
        pool.set(*names[:count])
    every = {first + each for first, size in pool.ranges for each in range(size)}
    assert set(pool.live().values()) == every

    pool.set(*names, "late")

    assert [str(error) for error in pool.errors] == [
        f"pool Legacy: no address left for {service('late')} (16 of 16 in use, 0 at rest)"
    ]
    assert pool.binding("late") == Binding(None, None, None, 0)
    assert pool.set(*names, "late") == []  # it waits without a word more
    assert len(pool.errors) == 1
    pool.set(*names[1:], "late")
    assert pool.address("late") is None
    pool.set(*names[1:], "late", after_ms=DAY_MS)
    assert pool.address("late") is not None
    assert pool.binding("s0") is None  # its address is another's now


def test_who_waited_in_vain_is_forgotten() -> None:
    pool = Pool("10.0.0.0/32")
    pool.set("a")
    pool.set("a", "b")

    pool.set("a")

    assert pool.binding("b") is None


@pytest.mark.parametrize("first, second", [("b", "c"), ("c", "b")])
def test_the_longest_released_address_goes_first(first: str, second: str) -> None:
    pool = Pool("10.0.0.0/30")
    pool.set("a", "b", "c", "d")
    addresses = pool.address(first), pool.address(second)
    pool.set("a", second, "d", after_ms=1)
    pool.set("a", "d", after_ms=1)

    pool.set("a", "d", "e", after_ms=DAY_MS)
    pool.set("a", "d", "e", "f")

    assert (pool.address("e"), pool.address("f")) == addresses


def test_a_former_address_that_is_anothers_by_now_is_not_given_back() -> None:
    pool = Pool("10.0.0.0/30")
    pool.set("a")
    former = pool.address("a")
    allocation = LegacyAllocation(pool.ledger, pool.ranges, log_time_ms=0, quarantine_ms=DAY_MS)

    given = [allocation.choose(service(name), former)[0] for name in ("b", "a", "a")]

    assert given[1] == former
    assert len(set(given)) == 3, "given out twice"


def test_a_never_used_address_comes_before_a_rested_one() -> None:
    pool = Pool("10.0.0.0/31")
    pool.set("a")
    former = pool.address("a")
    pool.set()

    pool.set("b", after_ms=10 * DAY_MS)

    assert pool.address("b") not in (None, former)


def test_a_returning_name_gets_its_address_before_any_other() -> None:
    for newcomer in ("aaa", "zzz"):
        pool = Pool("10.0.0.0/32")
        pool.set("m")
        pool.set(after_ms=1)

        pool.set("m", newcomer, after_ms=10 * DAY_MS)

        assert pool.address("m") is not None
        assert pool.address(newcomer) is None


def test_an_address_outside_the_present_ranges_is_kept_and_not_given_out_again() -> None:
    pool = Pool("10.0.0.0/28")
    pool.set("a", "b")
    left, kept = pool.address("a"), pool.address("b")
    pool.ranges = ranges_without(["10.7.0.0/28"], ())

    pool.set("b", "c")
    pool.set("a", "b", "c")

    (first, size), *_ = pool.ranges
    assert pool.address("b") == kept
    assert pool.address("a") == left  # its own, for as long as it rests
    pool.set("b", "c")
    pool.set("a", "b", "c", after_ms=DAY_MS)
    for name in ("a", "c"):
        address = pool.address(name)
        assert address is not None
        assert first <= address < first + size


def test_no_range_is_no_address() -> None:
    pool = Pool()

    pool.set("a")

    assert "0 of 0 in use" in str(pool.errors[0])


NAMES = st.sets(st.sampled_from([f"s{number}" for number in range(12)]))


@given(st.lists(st.tuples(NAMES, st.sampled_from([0, 1, DAY_MS])), max_size=20))
def test_addresses_are_unique_stay_and_come_back(steps: list[tuple[set[str], int]]) -> None:
    pool = Pool("10.0.0.0/29")
    last: dict[str, tuple[int, int]] = {}

    for names, after_ms in steps:
        before = pool.live()
        pool.set(*names, after_ms=after_ms)

        live = pool.live()
        assert len(set(live.values())) == len(live)
        assert len(live) + len(pool.errors) == len(names)
        for key, address in live.items():
            assert before.get(key, address) == address, "an address moved"
            first, size = pool.ranges[0]
            assert first <= address < first + size
            for other, (its, until_ms) in last.items():
                if other != key and its == address:
                    assert pool.now_ms - until_ms >= DAY_MS, "an address did not rest"
        for key in before.keys() - live.keys():
            last[key] = before[key], pool.now_ms
        for key, (address, until_ms) in list(last.items()):
            if key in live:
                assert live[key] == address or pool.now_ms - until_ms >= DAY_MS
                del last[key]


@given(st.permutations([f"s{number}" for number in range(8)]))
def test_one_entry_gives_the_same_addresses_in_any_order(order: list[str]) -> None:
    one, other = Pool("10.0.0.0/29"), Pool("10.0.0.0/29")

    one.set(*order)
    other.set(*sorted(order))

    assert one.live() == other.live()


# The feed

HTTP = {SERVICE: "redis", "kuma.io/protocol": "http"}


def record(*inbound: dict[str, Any], address: str) -> Record:
    networking = {"address": address, "inbound": list(inbound)}
    return Record(created_ms=1, modified_ms=1, spec={"networking": networking})


NEAR = record({"port": 1, "tags": HTTP}, address="10.0.0.1")
FAR = record(
    {"port": 2, "tags": HTTP, "address": "10.9.0.2", "state": "NotReady"},
    {"port": 3, "tags": {SERVICE: "other"}},
    {"port": 4, "tags": HTTP},
    address="10.9.0.1",
)


def feed(ingresses: Mapping[str, list[Place]], **records: Record) -> dict[str, Any]:
    """The outbound of redis in zone west, of a Dataplane in each of some zones."""
    registry = Registry()
    for zone, each in records.items():
        registry.put("Dataplane", dp("a", zone), each.pack())
    (port,) = index_of(registry).ports(service("redis"))
    reached_at = Ingresses()
    for zone, places in ingresses.items():
        for number, place in enumerate(places):
            change = ingress(zone, *place, name=str(number))
            reached_at.put(change.key, change.payload)
    around = Surroundings(
        zone="west",
        dataplane=lambda key: records[zone_of(key)],
        ingresses=reached_at,
    )
    return outbound(service("redis"), port, parse_ipv4("240.0.0.7"), around)


def endpoint(address: str, port: int, zone: str, *, ready: bool = True) -> dict[str, Any]:
    priority = 0 if zone == "west" else 1
    return {"address": address, "port": port, "zone": zone, "priority": priority, "ready": ready}


def test_an_outbound_names_its_service_and_all_its_endpoints_the_zones_own_first() -> None:
    found = feed({}, west=NEAR, east=FAR)

    assert found == {
        "id": "default//service/redis/80",
        "kind": "Legacy",
        "vips": ["240.0.0.7", "fd00:fd00::f000:7"],
        "port": 80,
        "name": "redis",
        "protocol": "http",
        "zone": "",
        "endpoints": [
            endpoint("10.0.0.1", 1, "west"),
            endpoint("10.9.0.2", 2, "east", ready=False),
            endpoint("10.9.0.1", 4, "east"),
        ],
    }
    assert found["id"].startswith(outbound_ids(service("redis")))
    assert not found["id"].startswith(outbound_ids(service("red")))


def test_another_zone_is_reached_through_its_ingresses_if_it_has_any() -> None:
    places = [("10.9.9.2", 10001), ("10.9.9.1", 10001)]

    found = feed({"east": places, "west": places}, west=NEAR, east=FAR)

    assert found["endpoints"] == [
        endpoint("10.0.0.1", 1, "west"),
        endpoint("10.9.9.1", 10001, "east"),
        endpoint("10.9.9.2", 10001, "east"),
    ]


@pytest.mark.parametrize(
    "protocols, expected",
    [
        (("http", "http"), "http"),
        (("http", "grpc"), "tcp"),
        (("", ""), "tcp"),
        (("HTTP2", "http2"), "http2"),
    ],
)
def test_what_does_not_speak_alike_is_tcp(protocols: tuple[str, str], expected: str) -> None:
    inbound = [
        {"port": at, "tags": {SERVICE: "redis"}, "protocol": each}
        for at, each in enumerate(protocols, 1)
    ]

    assert feed({}, west=record(*inbound, address="10.0.0.1"))["protocol"] == expected


def test_a_dataplane_that_is_not_served_is_no_endpoint() -> None:
    _, index = mesh_of("a")
    (port,) = index.ports(service("a"))
    around = Surroundings(zone="west", dataplane=lambda _: None, ingresses=Ingresses())

    assert outbound(service("a"), port, 1, around)["endpoints"] == []
