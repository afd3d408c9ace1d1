"""VirtualOutbounds: which tags they match, what they render, who has a port that two want."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from zonemesh.errors import InputError
from zonemesh.legacy import Conflict, LegacyIndex, Port, inbounds_behind
from zonemesh.model import Key, Record
from zonemesh.registry import Registry
from zonemesh.template import TemplateError
from zonemesh.virtualoutbound import VirtualOutbound

SERVICE = "kuma.io/service"
TAGS = {SERVICE: "Redis_cache", "version": "v1", "port": "6379"}
PARAMETERS = [{"name": "svc", "tagKey": SERVICE}, {"name": "version"}, {"name": "port"}]


def spec(
    *selectors: Mapping[str, str], host: str = "{{.svc}}.corp", port: str | int = "80"
) -> dict[str, Any]:
    return {
        "selectors": [{"match": dict(match)} for match in selectors or ({SERVICE: "*"},)],
        "conf": {"host": host, "port": port, "parameters": PARAMETERS},
    }


def policy(name: str, document: dict[str, Any], created_ms: int = 1) -> VirtualOutbound:
    record = Record(created_ms=created_ms, modified_ms=created_ms, spec=document)
    return VirtualOutbound.parse(Key("default", "", "", name).packed, record)


class Mesh:
    """One mesh as global holds it, with the index of its legacy names."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.index = LegacyIndex()
        self.index.attach(self.registry)

    def dataplane(self, name: str, *tags: Mapping[str, str]) -> str:
        inbound = [{"port": 8080 + at, "tags": dict(each)} for at, each in enumerate(tags)]
        record = Record(
            created_ms=1,
            modified_ms=1,
            spec={"networking": {"address": "10.0.0.1", "inbound": inbound}},
        )
        key = Key("default", "west", "", name).packed
        self.registry.put("Dataplane", key, record.pack() if tags else None)
        return key

    def policy(self, name: str, document: dict[str, Any] | None, created_ms: int = 1) -> None:
        key = Key("default", "", "", name).packed
        payload = None
        if document is not None:
            record = Record(created_ms=created_ms, modified_ms=created_ms, spec=document)
            payload = record.pack()
        self.registry.put("VirtualOutbound", key, payload)

    def ports(self, host: str) -> dict[int, Port]:
        return {port.port: port for port in self.index.ports(f"default//host/{host}")}

    def winners(self, host: str) -> dict[int, tuple[str | None, str]]:
        """By port: the policy that has it, and the service behind it."""
        return {
            port.port: (
                None if port.virtual_outbound is None else port.virtual_outbound.key[10:],
                port.service,
            )
            for port in self.ports(host).values()
        }


@pytest.mark.parametrize(
    "selectors, matches",
    [
        ([{SERVICE: "*"}], True),
        ([{SERVICE: "Redis_cache"}], True),
        ([{SERVICE: "redis"}], False),
        ([{SERVICE: "*", "version": "v1"}], True),
        ([{SERVICE: "*", "version": "v2"}], False),
        ([{SERVICE: "*", "absent": "*"}], False),
        ([{SERVICE: "redis"}, {"version": "*"}], True),
    ],
)
def test_selectors(selectors: list[dict[str, str]], matches: bool) -> None:
    assert (policy("a", spec(*selectors)).render(TAGS) is not None) == matches


@pytest.mark.parametrize(
    "host, port, expected",
    [
        ("{{.svc}}.mesh", "{{.port}}", ("redis_cache.mesh", 6379)),
        ("{{ .version }}.{{ .svc }}.Corp.", "80", ("v1.redis_cache.corp", 80)),
        ('{{ printf "%s-%s" .svc .version }}.mesh', 443, ("redis_cache-v1.mesh", 443)),
        ("one", "65535", ("one", 65535)),
    ],
)
def test_rendering(host: str, port: str | int, expected: tuple[str, int]) -> None:
    rendered = policy("a", spec(host=host, port=port)).render(TAGS)

    assert rendered is not None
    assert rendered[:2] == expected


@pytest.mark.parametrize(
    "host, port",
    [
        ("{{.svc}}..mesh", "80"),
        ("-{{.svc}}.mesh", "80"),
        ("a b", "80"),
        ("{{.nobody}}.mesh", "80"),
        ("a" * 64 + ".mesh", "80"),
        (".".join(["a" * 60] * 5), "80"),
        ("a.mesh", "0"),
        ("a.mesh", "65536"),
        ("a.mesh", "{{.version}}"),
        ("a.mesh", "-1"),
        ("a.mesh", "9" * 5000),
        ("a.mesh", "٣"),
    ],
)
def test_what_makes_no_host_and_port(host: str, port: str) -> None:
    with pytest.raises(TemplateError):
        policy("a", spec(host=host, port=port)).render(TAGS)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"selectors": [{"match": {}}], "conf": {"host": "a", "port": "1"}},
        {"selectors": [{"match": {SERVICE: 1}}], "conf": {"host": "a", "port": "1"}},
        {"selectors": [{"match": {SERVICE: "*"}}], "conf": {"host": "{{", "port": "1"}},
        {"selectors": [{"match": {SERVICE: "*"}}], "conf": {"host": 1, "port": "1"}},
        {"selectors": [], "conf": {"host": "a", "port": "1", "parameters": [{"name": 1}]}},
        {"selectors": None, "conf": None},
    ],
)
def test_a_record_that_cannot_be_read_makes_no_names_and_stops_nothing(
    broken: dict[str, Any],
) -> None:
    mesh = Mesh()
    mesh.dataplane("a", {SERVICE: "redis"})

    mesh.policy("broken", broken)

    assert list(mesh.index.wanted()) == ["default//service/redis"]
    with pytest.raises(InputError):
        policy("broken", broken)


CLOSER = spec({SERVICE: "*", "version": "v1"}, port="80")
EXACT = spec({SERVICE: "redis"}, port="80")
LOOSE = spec({SERVICE: "*"}, port="80")


@pytest.mark.parametrize(
    "winner, loser",
    [
        ((CLOSER, 1), (LOOSE, 2)),  # more tags, though older
        ((CLOSER, 1), (EXACT, 2)),
        ((EXACT, 1), (LOOSE, 2)),  # as many tags, more of them exact
        ((LOOSE, 2), (LOOSE, 1)),  # the younger
        ((spec({SERVICE: "*"}, {SERVICE: "*", "version": "v1"}), 2), (CLOSER, 1)),
        ((spec({SERVICE: "nobody"}, {SERVICE: "redis"}), 1), (LOOSE, 2)),
        ((LOOSE, 2), (spec({SERVICE: "no", "version": "v1", "a": "b"}, {SERVICE: "*"}), 1)),
    ],
)
def test_the_closest_selector_then_the_youngest_policy_has_a_port(
    winner: tuple[dict[str, Any], int], loser: tuple[dict[str, Any], int]
) -> None:
    for names in (("a", "b"), ("b", "a")):
        mesh = Mesh()
        mesh.dataplane("one", {SERVICE: "redis", "version": "v1"})
        mesh.policy(names[1], *loser)
        mesh.policy(names[0], *winner)

        assert mesh.winners("redis.corp") == {80: (names[0], "redis")}
        assert mesh.index.conflicts("default//host/redis.corp") == [
            Conflict("redis.corp", 80, f"default///{names[0]}", f"default///{names[1]}")
        ]


def test_of_equal_policies_the_lesser_name_has_a_port() -> None:
    mesh = Mesh()
    mesh.dataplane("one", {SERVICE: "redis"})
    for name in ("c", "a", "b"):
        mesh.policy(name, LOOSE)

    assert mesh.winners("redis.corp") == {80: ("a", "redis")}


def test_a_host_whose_winner_goes_falls_to_the_next() -> None:
    mesh = Mesh()
    mesh.dataplane("one", {SERVICE: "redis"})
    mesh.policy("old", LOOSE, created_ms=1)
    mesh.policy("young", LOOSE, created_ms=2)
    mesh.index.take()

    mesh.policy("young", None)

    assert "default//host/redis.corp" in mesh.index.take().endpoints
    assert mesh.winners("redis.corp") == {80: ("old", "redis")}
    assert mesh.index.conflicts("default//host/redis.corp") == []


def test_several_policies_give_one_host_several_ports() -> None:
    mesh = Mesh()
    mesh.dataplane("one", {SERVICE: "redis", "port": "6379"})
    mesh.policy("plain", spec(port="80"))
    mesh.policy("own", spec(port="{{.port}}"))

    assert mesh.winners("redis.corp") == {80: ("plain", "redis"), 6379: ("own", "redis")}


def test_one_host_for_several_services_falls_to_the_lesser_and_never_mixes_them() -> None:
    mesh = Mesh()
    mesh.policy("all", spec(host="all.corp"))
    mesh.dataplane("b", {SERVICE: "b"})
    assert mesh.winners("all.corp") == {80: ("all", "b")}
    a = mesh.dataplane("a", {SERVICE: "a"})

    assert mesh.winners("all.corp") == {80: ("all", "a")}
    assert mesh.ports("all.corp")[80].dataplanes == (a,)
    assert len(mesh.index.conflicts("default//host/all.corp")) == 1

    mesh.dataplane("c", {SERVICE: "c"})
    other = mesh.dataplane("a2", {SERVICE: "a"})
    assert mesh.ports("all.corp")[80].dataplanes == (a, other)
    for name in ("a", "a2", "b"):
        mesh.dataplane(name)
    assert mesh.winners("all.corp") == {80: ("all", "c")}


def test_many_dataplanes_stand_behind_one_host() -> None:
    mesh = Mesh()
    mesh.policy("all", LOOSE)
    keys = [mesh.dataplane(f"dp-{number:02}", {SERVICE: "redis"}) for number in range(20)]
    assert mesh.ports("redis.corp")[80].dataplanes == tuple(keys)

    for number in range(19):
        mesh.dataplane(f"dp-{number:02}")

    assert mesh.ports("redis.corp")[80].dataplanes == (keys[-1],)
    mesh.dataplane("dp-19")
    assert not list(mesh.index.wanted())


def test_dataplanes_that_different_selectors_match_stand_behind_one_port() -> None:
    mesh = Mesh()
    mesh.policy(
        "all",
        {
            "selectors": [{"match": {SERVICE: "*"}}, {"match": {SERVICE: "*", "fast": "yes"}}],
            "conf": {
                "host": "{{.s}}.corp",
                "port": "80",
                "parameters": [{"name": "s", "tagKey": SERVICE}],
            },
        },
    )
    keys = (
        mesh.dataplane("a", {SERVICE: "redis"}),
        mesh.dataplane("b", {SERVICE: "redis", "fast": "yes"}),
    )

    assert mesh.ports("redis.corp")[80].dataplanes == keys
    assert mesh.index.conflicts("default//host/redis.corp") == []


def test_only_the_inbounds_that_match_take_connections() -> None:
    mesh = Mesh()
    mesh.policy("v1", spec({SERVICE: "*", "version": "v1"}))
    key = mesh.dataplane(
        "a", {SERVICE: "redis", "version": "v1"}, {SERVICE: "redis", "version": "v2"}
    )
    payload = mesh.registry.get("Dataplane", key)
    assert payload is not None

    (port,) = mesh.ports("redis.corp").values()

    behind = inbounds_behind(port, Record.unpack(payload))
    assert [inbound["port"] for inbound in behind] == [8080]


def test_a_policy_that_changes_moves_its_hosts() -> None:
    mesh = Mesh()
    mesh.dataplane("one", {SERVICE: "redis"})
    mesh.policy("all", LOOSE)
    mesh.index.take()

    mesh.policy("all", spec(host="{{.svc}}.lan"))

    touched = mesh.index.take()
    assert {"default//host/redis.corp", "default//host/redis.lan"} <= touched.names
    assert not mesh.index.wants("default//host/redis.corp")
    assert mesh.index.wants("default//host/redis.lan")


def test_a_policy_of_another_mesh_matches_nothing_here() -> None:
    mesh = Mesh()
    mesh.dataplane("one", {SERVICE: "redis"})
    record = Record(created_ms=1, modified_ms=1, spec=LOOSE)

    mesh.registry.put("VirtualOutbound", Key("other", "", "", "all").packed, record.pack())

    assert list(mesh.index.wanted()) == ["default//service/redis"]


def test_a_host_takes_over_a_services_name_and_keeps_its_port_in_use() -> None:
    mesh = Mesh()
    key = mesh.dataplane("one", {SERVICE: "redis", "port": "6379"})
    mesh.index.take()

    mesh.policy("own", spec(host="{{.svc}}.mesh", port="{{.port}}"))

    host, service = "default//host/redis.mesh", "default//service/redis"
    assert mesh.index.contenders("default", "redis.mesh") == [host, service]
    assert {host, service} <= mesh.index.take().names
    assert mesh.index.conflicts(service) == [Conflict("redis.mesh", None, host, service)]
    assert mesh.winners("redis.mesh") == {80: (None, "redis"), 6379: ("own", "redis")}
    assert mesh.ports("redis.mesh")[80].dataplanes == (key,)
    mesh.dataplane("two", {SERVICE: "redis"})
    assert host in mesh.index.take().endpoints  # its port 80 has one more behind it


def test_a_rendered_port_comes_before_the_services_own() -> None:
    mesh = Mesh()
    mesh.dataplane("one", {SERVICE: "redis"})

    mesh.policy("own", spec(host="{{.svc}}.mesh", port="80"))

    assert mesh.winners("redis.mesh") == {80: ("own", "redis")}
