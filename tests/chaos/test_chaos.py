"""The short form of `make chaos`: a mesh under load, broken again and again, has no violation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.run import Run

SEED = 7


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    found = Run(tmp_path_factory.mktemp("chaos"), SEED)
    try:
        yield found
    finally:
        found.close()


def check(run: Run, *faults: str) -> None:
    for fault in faults:
        outcome = run.do(fault)
        assert outcome.passed, run.explain(outcome)


@pytest.mark.timeout(90)
def test_processes_are_killed_and_paused(run: Run) -> None:
    check(run, "kill_zone", "pause_leader", "kill_agent")


@pytest.mark.timeout(60)
def test_links_are_cut_and_deliver_one_way(run: Run) -> None:
    check(run, "cut_everyone", "one_way_down_to_leader")


@pytest.mark.timeout(60)
def test_redis_is_killed_and_a_replica_without_the_newest_entries_takes_over(run: Run) -> None:
    check(run, "redis_killed_everysec", "stale_failover")


@pytest.mark.timeout(60)
def test_redis_is_emptied(run: Run) -> None:
    check(run, "flushall")


@pytest.mark.timeout(60)
def test_disks_are_full_and_copies_torn(run: Run) -> None:
    check(run, "zone_disk_full", "zone_copy_torn")
