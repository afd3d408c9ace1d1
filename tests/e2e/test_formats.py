"""A mesh is upgraded, process by process, to a build that writes logs in a later format."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.mesh import AGENTS, GLOBALS, PLANES, Mesh, Process, elsewhere, eventually, watching
from tests.formats import LATER

SETTLE_S = 3.0
"""Instead of a minute: what it is for does not happen here."""

LATER_BUILD = f"""
import sys
from tests.formats import learn
from zonemesh import formats
learn()
formats.SETTLE_S = {SETTLE_S}
from {{plane}}.__main__ import main
main()
"""


def upgrade(mesh: Mesh, name: str) -> Process:
    """Stop a process and start it again as the later build; the old one's command."""
    old = mesh[name]
    old.stop()
    plane = "globalcp" if name in GLOBALS else "zonecp"
    config = str(mesh.directory / f"{name}.yaml")
    command = [sys.executable, "-c", LATER_BUILD.format(plane=plane), "run", "-c", config]
    mesh.processes[name] = Process(name, command, old.log)
    mesh.start(name)
    return old


def written_in(mesh: Mesh, name: str) -> int:
    return int(mesh.state(name)["formats"]["log" if name in GLOBALS else "global"])


@pytest.mark.timeout(150)
def test_a_later_format_is_written_once_every_process_reads_it_and_not_before(mesh: Mesh) -> None:
    mesh.start_all()
    known = mesh.registered("one")

    with watching(mesh, {("east", elsewhere("one")): known["one"]}):
        first = mesh.leading()
        (standby,) = set(GLOBALS) - {first}
        old = {name: upgrade(mesh, name) for name in (standby, first, "west")}
        eventually(
            lambda: mesh.state(mesh.leading())["formats"]["heldBackBy"] == ["zone east"],
            10,
            mesh,
            *GLOBALS,
        )
        assert {written_in(mesh, name) for name in PLANES} == {1}
        known |= mesh.registered("two")
        upgrade(mesh, "east")
        for name in PLANES:
            eventually(lambda name=name: written_in(mesh, name) == LATER, 20, mesh, name)  # type: ignore[misc]
        eventually(lambda: mesh.state("west")["formats"]["own"] == LATER, 5, mesh, "west")
        known |= mesh.registered("three")

        standby = next(name for name in GLOBALS if name != mesh.leading())
        mesh[standby].stop()
        mesh.processes[standby] = old[standby]
        mesh[standby].start()
        eventually(lambda: "newer_format" in (mesh.not_ready(standby) or ""), 15, mesh, standby)
        known |= mesh.registered("four")
        upgrade(mesh, standby)

    for agent in AGENTS:
        mesh[agent].stop()
        mesh.start(agent)
    assert mesh.resolves("east", elsewhere("one")) == known["one"]
    for plane in PLANES:
        eventually(lambda plane=plane: mesh.holds(plane, known), 15, mesh, plane)  # type: ignore[misc]
