"""A zone's control plane is away: its agents answer, and it catches up without a full copy."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, at_home, elsewhere, eventually, watching


@pytest.mark.timeout(60)
def test_agents_answer_without_their_zone_even_after_a_restart_of_their_own(mesh: Mesh) -> None:
    mesh.start_all()
    address = mesh.registered("kept")["kept"]
    mesh.resolves("west", at_home("kept"))
    # The map is written behind, within a moment.
    eventually(lambda: mesh.metric("east-agent", "zonedp_cache_bytes").get("", 0) > 0, 5, mesh)
    eventually(lambda: _cached(mesh, elsewhere("kept")), 5, mesh, "east-agent")

    for name in ("east", "west", "g1", "g2"):
        mesh[name].kill()
    mesh.kill_redis()
    assert mesh.resolve("east", elsewhere("kept")) == [address]
    assert mesh.resolve("west", at_home("kept")) == [address]

    mesh["east-agent"].kill()
    mesh.start("east-agent")
    assert mesh.resolve("east", elsewhere("kept")) == [address]


def _cached(mesh: Mesh, name: str) -> bool:
    """Whether the agent's files mention a service (labels are separated on the wire)."""
    label = name.partition(".")[0].encode()
    files = [path for path in mesh.data_dir("east-agent").rglob("*") if path.is_file()]
    return any(label in path.read_bytes() for path in files)


@pytest.mark.timeout(60)
def test_a_zone_that_is_frozen_costs_nothing_but_news(mesh: Mesh) -> None:
    mesh.start_all()
    address = mesh.registered("kept")["kept"]

    with watching(mesh, {("east", elsewhere("kept")): address}):
        mesh["east"].pause()
        mesh.register("west", "news")
        home = mesh.resolves("west", at_home("news"))
        assert mesh.resolve("east", elsewhere("news")) == []
        mesh["east"].resume()
        assert mesh.resolves("east", elsewhere("news")) == home


@pytest.mark.timeout(60)
def test_a_zone_that_was_away_for_a_moment_reads_only_what_it_missed(mesh: Mesh) -> None:
    mesh.start_all()
    mesh.registered("before")

    assert mesh["east"].stop() == 0
    for number in range(5):
        mesh.register("west", f"missed-{number}")
    mesh.start("east")

    for number in range(5):
        mesh.resolves("east", elsewhere(f"missed-{number}"))
    assert mesh.metric("east", "zonemesh_resyncs_total") == {}
    assert mesh.metric("east", "zonemesh_uplink_full_syncs_total") == {"": 0.0}
    leader = mesh.leading()
    syncs = mesh.metric(leader, "zonemesh_zone_resyncs_total")
    assert {labels: count for labels, count in syncs.items() if 'zone="east"' in labels} == {
        'reason="full_sync",zone="east"': 1.0
    }, "once, at its first start"


@pytest.mark.timeout(90)
def test_a_zone_that_was_away_for_too_long_starts_from_a_snapshot(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path, global_config={"snapshots": {"entries": 10}})
    try:
        mesh.start_all()
        addresses = mesh.registered("before", "changed")
        assert mesh["east"].stop() == 0

        leader = mesh.leading()
        taken = mesh.metric(leader, "zonemesh_snapshots_total")[""]
        for number in range(60):
            mesh.register("west", f"missed-{number}")
            if mesh.metric(leader, "zonemesh_snapshots_total")[""] >= taken + 3:
                break
            time.sleep(0.02)  # an entry each: many in one would not fill the log
        eventually(
            lambda: mesh.metric(leader, "zonemesh_snapshots_total")[""] >= taken + 3,
            20,
            mesh,
            leader,
        )
        mesh.start("east")

        addresses["missed-0"] = mesh.resolves("east", elsewhere("missed-0"))
        assert sum(mesh.metric("east", "zonemesh_resyncs_total").values()) >= 1
        for service, address in addresses.items():
            assert mesh.resolve("east", elsewhere(service)) == [address]
        eventually(lambda: mesh.holds("east", addresses), 5, mesh, "east")
    finally:
        mesh.close()


@pytest.mark.timeout(60)
def test_a_name_removed_while_its_reader_slept_and_its_zone_restarted_is_gone(mesh: Mesh) -> None:
    mesh.start_all()
    mesh.registered("leaves", "stays")

    mesh["east-agent"].pause()
    mesh.remove("west", "leaves")
    eventually(lambda: "west/leaves" not in mesh.vips("east"), 10, mesh, "east")
    assert mesh["east"].stop() == 0
    mesh.start("east")
    mesh["east-agent"].resume()

    eventually(lambda: not mesh.resolve("east", elsewhere("leaves")), 10, mesh, "east-agent")
    mesh.resolves("east", elsewhere("stays"))
