"""Global's Redis dies: zones work on, and catch up when it is back."""

from __future__ import annotations

from functools import partial

import pytest

from tests.e2e.mesh import (
    AGENTS,
    GLOBALS,
    PLANES,
    ZONES,
    Mesh,
    at_home,
    elsewhere,
    eventually,
    in_east,
    watching,
)


@pytest.mark.timeout(90)
def test_zones_register_and_answer_while_redis_is_down_and_agree_when_it_is_back(
    mesh: Mesh,
) -> None:
    mesh.start_all()
    old = mesh.registered("old")

    with watching(
        mesh, {("east", elsewhere("old")): old["old"], ("west", at_home("old")): old["old"]}
    ):
        mesh.kill_redis()
        mesh.register("west", "new")
        mesh.register("east", "other")
        new = mesh.resolves("west", at_home("new"))
        other = mesh.resolves("east", at_home("other"))
        for zone in ZONES:
            eventually(lambda zone=zone: mesh.state(zone)["lag_s"] > 2, 8, mesh, zone)  # type: ignore[misc]

        mesh.start_redis()
        assert mesh.resolves("east", elsewhere("new"), timeout_s=15) == new
        assert mesh.resolves("west", elsewhere("other", "east"), timeout_s=15) == other

    for plane in PLANES:
        eventually(partial(mesh.holds, plane, {**old, "new": new}), 8, mesh, plane)
    for zone in ZONES:
        eventually(lambda zone=zone: mesh.state(zone)["lag_s"] < 2, 8, mesh, zone)  # type: ignore[misc]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("globals_too", [False, True], ids=["redis", "redis and every global"])
def test_an_emptied_redis_takes_no_name_and_moves_no_address(
    mesh: Mesh,
    globals_too: bool,
) -> None:
    mesh.start_all()
    old = mesh.registered("old", "older")
    with watching(mesh, in_east(old)):
        if globals_too:
            for name in GLOBALS:
                mesh[name].kill()
                mesh.forget(name)
        mesh.empty_redis()
        if globals_too:
            mesh.start(*GLOBALS)

        mesh.register("west", "new")
        address = mesh.resolves("east", elsewhere("new"), timeout_s=40)

    for plane in PLANES:
        eventually(partial(mesh.holds, plane, {**old, "new": address}), 20, mesh, plane)


@pytest.mark.timeout(60)
def test_what_waits_for_redis_says_so_and_goes_on_when_it_appears(mesh: Mesh) -> None:
    for name in PLANES:
        mesh[name].start()

    for name in PLANES:
        eventually(partial(_names_redis_as_the_reason, mesh, name), 20, mesh, name)

    mesh.start_redis()
    mesh.wait_ready(*PLANES)
    mesh.start(*AGENTS)
    mesh.registered("late")


def _names_redis_as_the_reason(mesh: Mesh, name: str) -> bool:
    """It lives, and says what it waits for and why (from its first failed attempt on)."""
    assert mesh[name].running
    why = mesh.not_ready(name) or ""
    return "global" in why and "redis: Error 111" in why


@pytest.mark.timeout(60)
def test_a_zone_that_starts_while_redis_is_down_accepts_registrations(mesh: Mesh) -> None:
    mesh["west"].start()
    eventually(lambda: mesh.registers("west", "early"), 20, mesh, "west")

    mesh.start_redis()
    for name in ("g1", "g2", "east"):
        mesh[name].start()
    mesh.wait_ready(*PLANES)
    mesh.start(*AGENTS)

    address = mesh.resolves("east", elsewhere("early"))
    assert mesh.resolves("west", at_home("early")) == address
