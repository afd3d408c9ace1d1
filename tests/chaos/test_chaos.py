"""The short form of `make chaos`: a mesh under load, broken again and again, has no violation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.run import Run
from tests.redis_server import needs_redis

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


@pytest.mark.timeout(90)
def test_disks_are_full_and_files_damaged(run: Run) -> None:
    check(run, "zone_disk_full", "zone_copy_torn", "own_log_torn")


@pytest.mark.timeout(120)
def test_sentinels_promote_a_replica_that_lacks_entries(tmp_path: Path) -> None:
    needs_redis(7)
    run = Run(tmp_path, SEED, sentinels=True)
    try:
        check(run, "sentinels_killed_in_turn", "master_killed_whose_replicas_are_behind")
    finally:
        run.close()
