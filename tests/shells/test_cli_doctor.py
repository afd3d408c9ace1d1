"""`zonemesh doctor`: each fault is found, with what to do; what cannot be reached is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from globalcp.config import GlobalConfig
from tests.builders import FakeBackend
from tests.commands import GLOBAL, app_of, serving
from tests.docs import inventory
from tests.ports import free_port
from zonemesh.cli import diagnosis
from zonemesh.cli.diagnosis import Level
from zonemesh.cli.doctor import lines
from zonemesh.cli.main import cli
from zonemesh.runtime import config as configuration

USAGE = {"used": 5, "quarantined": 0, "free": 5, "waiting": 0, "blocks": 1}
WELL: dict[str, Any] = {
    **GLOBAL,
    "leader": True,
    "leader_url": None,
    "resyncs": {},
    "shortages": [],
    "mismatches": 0,
    "mismatch": None,
    "sizes": {"MeshService": 100},
    "pools": {"MeshService": {"west": USAGE}},
    "zones": {
        "west": {"online": True, "lagSeconds": 0.5, "rejectedRecords": 0, "bindingConflicts": 0}
    },
}
ZONE: dict[str, Any] = {
    **{key: WELL[key] for key in ("lag_s", "ready", "resyncs", "halted", "pools")},
    "zone": "west",
    "own": {},
    "federated": True,
    "adopted": True,
    "uplink_refused": None,
}


def run(*arguments: str, url: str = "") -> Result:
    return CliRunner(env={"ZONEMESH_URL": url, "COLUMNS": "", "ZONEMESH_REDIS_URL": ""}).invoke(
        cli, ["doctor", *arguments], catch_exceptions=False
    )


def wrong(state: Mapping[str, Any]) -> set[tuple[str, str]]:
    found = list(diagnosis.of_plane(state, "here"))
    assert all(each.remedy for each in found if each.level is not Level.OK)
    return {(each.check, str(each.level)) for each in found if each.level is not Level.OK}


def test_of_a_mesh_that_is_well_nothing_is_said() -> None:
    assert wrong(WELL) == set()
    assert wrong(ZONE) == set()


@pytest.mark.parametrize(
    "fault, check, level",
    [
        ({"ready": "global's log has not been read yet"}, "ready", "error"),
        ({"stale": "what is known of other zones is 60 s old"}, "ready", "warning"),
        ({"blocked_s": 7.0}, "ready", "error"),
        ({"halted": "gap"}, "log", "error"),
        ({"resyncs": {"fork": 1}}, "log", "warning"),
        ({"mismatches": 1}, "state", "warning"),
        ({"mismatches": 4, "mismatch": "before 1-4"}, "state", "error"),
        ({"lag_s": None}, "lag", "warning"),
        ({"lag_s": 11.0}, "lag", "error"),
        ({"shortages": [{"pool": "MeshService", "zone": "", "why": "full"}]}, "pool", "error"),
        ({"pools": {"MeshService": {"west": {**USAGE, "waiting": 1}}}}, "pool", "warning"),
        ({"sizes": {"MeshService": 12}}, "pool", "warning"),
        ({"sizes": {"MeshService": 10}}, "pool", "error"),
        ({"leader": False, "leader_url": None}, "leader", "error"),
        (
            {"settings": {"differs": {"quarantine_ms": {"mesh": 60_000, "configured": 3_600_000}}}},
            "settings",
            "warning",
        ),
        (
            {"formats": {"log": 1, "readable": [1, 2], "heldBackBy": ["zone east"]}},
            "formats",
            "warning",
        ),
        ({"zones": {"east": {"online": False, "lagSeconds": 70.0}}}, "zone", "error"),
        ({"zones": {"east": {"online": True, "lagSeconds": 70.0}}}, "zone", "warning"),
        ({"zones": {"east": {"online": True, "rejectedRecords": 2}}}, "rejected", "warning"),
        ({"zones": {"east": {"online": True, "bindingConflicts": 2}}}, "conflict", "warning"),
    ],
)
def test_each_fault_of_a_global_is_found(fault: dict[str, Any], check: str, level: str) -> None:
    assert wrong({**WELL, **fault}) == {(check, level)}


@pytest.mark.parametrize(
    "fault, check, level",
    [
        ({"adopted": False}, "adopted", "error"),
        ({"uplink_refused": "the head is another"}, "uplink", "error"),
        ({"renumbered": 1}, "conflict", "warning"),
    ],
)
def test_each_fault_of_a_zone_is_found(fault: dict[str, Any], check: str, level: str) -> None:
    assert wrong({**ZONE, **fault}) == {(check, level)}


def test_settings_that_differ_are_told_as_the_configuration_has_them() -> None:
    everything: dict[str, Any] = {
        "ipam": {
            "meshService": {"cidr": ["10.0.0.0/8", "11.0.0.0/8"]},
            "meshExternalService": {"cidr": ["12.0.0.0/8"]},
            "meshMultiZoneService": {"cidr": ["13.0.0.0/8"]},
            "quarantine": "1h30m",
        },
        "dnsServer": {
            "CIDR": "14.0.0.0/8",
            "domain": "legacy",
            "serviceVipEnabled": False,
            "serviceVipPort": 81,
        },
        "zones": {
            "offlineAfter": "20s",
            "staleAfter": "7s",
            "quota": {"services": 1, "bytes": 2},
        },
    }
    config, _ = configuration.load(GlobalConfig, everything, {})
    changed = config.settings.changed_from(GlobalConfig().settings)
    differs = {name: {"mesh": was, "configured": now} for name, (was, now) in changed.items()}
    state = json.loads(json.dumps({**WELL, "settings": {"differs": differs}}))

    (told,) = [each for each in diagnosis.of_plane(state, "here") if each.check == "settings"]

    assert len(changed) == len(diagnosis.KEYS) == 12
    assert set(diagnosis.KEYS.values()) <= set(inventory.settings("globalcp"))
    for words in (
        "ipam.meshService.cidr is 10.0.0.0/8, 11.0.0.0/8, the mesh has 241.0.0.0/8",
        "ipam.quarantine is 1h30m, the mesh has 24h",
        "dnsServer.serviceVipEnabled is false, the mesh has true",
        "zones.quota.services is 1, the mesh has 250000",
    ):
        assert words in told.what
    assert "restart them one after the other" in told.remedy


def test_clocks_versions_and_states_are_compared_with_each_other() -> None:
    skewed = list(diagnosis.of_clocks({"a": 0.1, "b": -4.0}))
    mixed = list(diagnosis.of_versions({"a": {"version": "0.1"}, "b": {"version": "0.2"}}))
    states = {"a": {**WELL, "digest": "1"}, "b": {**WELL, "digest": "2"}, "west": ZONE}
    differing = list(diagnosis.of_replicas(states))

    assert [each.what for each in skewed] == ["a is 4.1 s ahead of b"]
    assert [each.what for each in mixed] == ["0.1: a; 0.2: b"]
    assert [each.level for each in differing] == [Level.ERROR]
    assert not list(diagnosis.of_replicas({"a": WELL, "b": {**WELL, "cursor": "8c1f.3-121"}}))


@pytest.mark.parametrize(
    "held, level",
    [
        ({"loaded": False}, Level.ERROR),
        ({"loaded": True, "age_s": None}, Level.ERROR),
        ({"loaded": True, "age_s": 40.0, "connected": True}, Level.WARNING),
        ({"loaded": True, "age_s": 0.4, "connected": True, "mismatch": "x"}, Level.ERROR),
        ({"loaded": True, "age_s": 0.4, "connected": True}, Level.OK),
    ],
)
def test_an_agents_map_is_judged_by_its_age(held: dict[str, Any], level: Level) -> None:
    assert (
        max(
            (each.level for each in diagnosis.of_agent({"map": held}, "agent")),
            key=list(Level).index,
        )
        is level
    )


class Described(FakeBackend):
    """A control plane that says of itself what a test wants."""

    state: Mapping[str, Any] = {}

    def describe(self) -> Mapping[str, Any]:
        return self.state


def test_control_planes_that_are_named_are_asked_too_and_the_worst_decides() -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    backend = Described()
    backend.state = {**WELL, "zones": {"west": {**WELL["zones"]["west"], "url": gone}}}
    with serving(app_of(backend)) as url:
        result = run("-o", "json", "--timeout", "2", "--url", url)

    document = json.loads(result.stdout)
    faults = [each for each in document["findings"] if each["level"] != "ok"]
    assert [(each["check"], each["where"]) for each in faults] == [("reachable", gone)]
    assert result.exit_code == document["exitCode"] == 2


def test_exit_codes_tell_well_from_to_be_looked_at_from_broken() -> None:
    backend = Described()
    codes = []
    with serving(app_of(backend)) as url:
        for state in (WELL, {**WELL, "mismatches": 1}, {**WELL, "halted": "gap"}):
            backend.state = state
            codes.append(run("--url", url).exit_code)

    assert codes == [0, 1, 2]


def test_a_redis_that_does_not_answer_is_an_error_with_a_remedy() -> None:
    backend = Described()
    backend.state = WELL
    with serving(app_of(backend)) as url:
        result = run("--url", url, "--redis", f"redis://127.0.0.1:{free_port()}")

    assert result.exit_code == 2
    assert "is the port open" in result.stdout


def test_the_worst_comes_first_and_lines_fit() -> None:
    found = list(diagnosis.of_plane({**WELL, "mismatches": 1, "halted": "gap " * 40}, "here"))

    shown = list(lines(found, verbose=False, width=80))

    assert shown[0].startswith("ERROR")
    assert max(map(len, shown)) <= 80


def holding(zone: str, uid: str, **held: Any) -> web.Application:
    """A control plane that says what it holds (`GET /_addresses`)."""
    nothing: dict[str, Any] = {
        "zones": {},
        "pools": {"MeshService": ["241.0.0.0/8"]},
        "former": {},
        **dict.fromkeys(("blocks", "vips", "names", "made_here"), ()),
    }

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({**nothing, "zone": zone, "uid": uid, **held})

    app = web.Application()
    app.router.add_get("/_addresses", answer)
    return app


def standing_alone() -> web.Application:
    return holding(
        "west",
        "5f1e",
        blocks=[["MeshService", "west", "241.16.0.0", 4096]],
        vips=[["MeshService", "default", "redis", "241.16.0.5"]],
    )


def test_what_joining_would_change_is_told_in_whatever_order_and_within_the_width() -> None:
    taken = ["MeshService", "a-zone-of-a-long-name", "241.16.0.0", 4096]
    with serving(standing_alone()) as zone, serving(holding("", "", blocks=[taken])) as mesh:
        told = [
            CliRunner(env={"COLUMNS": "60"}).invoke(
                cli, ["doctor", "--join", "--url", first, "--url", second], catch_exceptions=False
            )
            for first, second in ((zone, mesh), (mesh, zone))
        ]

    assert told[0].stdout == told[1].stdout
    assert [each.exit_code for each in told] == [1, 1]
    assert "  MeshService default/redis, now 241.16.0.5" in told[0].stdout
    assert max(map(len, told[0].stdout.splitlines())) <= 60


def test_joining_needs_a_zone_and_a_global_that_answer() -> None:
    with serving(standing_alone()) as zone, serving(web.Application()) as other:
        one = run("--join", url=zone)
        neither = run("--join", "--url", zone, "--url", other)
        gone = run("--join", "--url", zone, "--url", f"http://127.0.0.1:{free_port()}")

    assert (one.exit_code, "needs --url twice" in one.stderr) == (2, True)
    assert (neither.exit_code, "is no control plane" in neither.stderr) == (2, True)
    assert gone.exit_code == 1
    assert gone.stderr.startswith("Error: ")
