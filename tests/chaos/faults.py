"""What is done to a mesh under load. Each fault begins, lasts and ends within its function; whoever
runs it waits for the mesh to heal and asks the checker.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos.faultproxy import WAYS, Way
from tests.chaos.redisnode import RedisNode
from tests.chaos.stage import Stage
from tests.e2e.mesh import AGENTS, GLOBALS, HOST, PLANES, ZONES, Process, eventually

HOLD_S = (1.5, 3.0)
"""A fault lasts for so long, chosen by seed."""


@dataclass
class Scene:
    """What a fault works on."""

    stage: Stage
    random: Random
    quiet: Callable[[], AbstractContextManager[None]]
    """Within it nobody registers or removes anything."""
    answers_s: float | None = None
    """When Redis answered again, for faults that took it away or changed it."""
    lossy: bool = False
    """Redis has lost what it had acknowledged: somebody must detect it."""

    def hold(self, factor: float = 1.0) -> None:
        time.sleep(factor * self.random.uniform(*HOLD_S))

    def zone(self) -> str:
        return self.random.choice(ZONES)

    def answers_again(self, *, lossy: bool) -> None:
        self.answers_s = time.monotonic()
        self.lossy = lossy
        self.stage.note("Redis answers again")


Fault = Callable[[Scene], None]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


# Processes


def _kill(scene: Scene, *names: str) -> None:
    scene.stage.kill(*names)
    scene.hold()
    scene.stage.back(*names)


def _pause(scene: Scene, *names: str, factor: float = 1.0) -> None:
    with scene.stage.paused(*names):
        scene.hold(factor)


@fault
def kill_leader(scene: Scene) -> None:
    _kill(scene, scene.stage.leading())


@fault
def kill_standby(scene: Scene) -> None:
    _kill(scene, scene.stage.standby())


@fault
def kill_both_globals(scene: Scene) -> None:
    _kill(scene, *GLOBALS)


@fault
def kill_zone(scene: Scene) -> None:
    _kill(scene, scene.zone())


@fault
def kill_agent(scene: Scene) -> None:
    _kill(scene, f"{scene.zone()}-agent")


@fault
def kill_zone_and_its_agent(scene: Scene) -> None:
    """The agent serves from its disk, with nobody to ask."""
    zone = scene.zone()
    scene.stage.kill(zone, f"{zone}-agent")
    scene.stage.back(f"{zone}-agent")
    scene.hold()
    scene.stage.back(zone)


@fault
def pause_leader(scene: Scene) -> None:
    """For longer than the lease: another leads when it wakes."""
    _pause(scene, scene.stage.leading(), factor=1.7)


@fault
def pause_standby(scene: Scene) -> None:
    _pause(scene, scene.stage.standby())


@fault
def pause_zone(scene: Scene) -> None:
    _pause(scene, scene.zone())


@fault
def pause_agent(scene: Scene) -> None:
    _pause(scene, f"{scene.zone()}-agent")


# Links


def _cut(scene: Scene, *names: str, factor: float = 1.0) -> None:
    with scene.stage.faulty("cut", *names) as links:
        for link in links:
            link.cut()
        scene.hold(factor)


def _hold(scene: Scene, *names: str, ways: Sequence[Way] = WAYS, factor: float = 1.0) -> None:
    """Nothing gets through in these ways; connections stay."""
    with scene.stage.faulty(f"nothing {' or '.join(ways)}", *names) as links:
        for link in links:
            link.hold(*ways)
        scene.hold(factor)


@fault
def cut_zone(scene: Scene) -> None:
    _cut(scene, scene.zone())


@fault
def cut_leader(scene: Scene) -> None:
    _cut(scene, scene.stage.leading(), factor=1.7)


@fault
def cut_everyone(scene: Scene) -> None:
    _cut(scene, *PLANES)


@fault
def cut_agent(scene: Scene) -> None:
    _cut(scene, f"{scene.zone()}-agent")


@fault
def one_way_up(scene: Scene) -> None:
    """What one of them sends does not arrive; what is sent to it does."""
    _hold(scene, scene.random.choice(PLANES), ways=("up",))


@fault
def one_way_down(scene: Scene) -> None:
    """What one of them sends arrives and has its effect; no reply comes back."""
    _hold(scene, scene.random.choice(PLANES), ways=("down",))


@fault
def one_way_down_to_leader(scene: Scene) -> None:
    """Its appends are in the log, and it does not know."""
    _hold(scene, scene.stage.leading(), ways=("down",), factor=1.7)


@fault
def blackhole(scene: Scene) -> None:
    _hold(scene, *PLANES)


@fault
def blackhole_agent(scene: Scene) -> None:
    _hold(scene, f"{scene.zone()}-agent")


@fault
def delays(scene: Scene) -> None:
    with scene.stage.faulty("late by 0.1 s", *PLANES) as links:
        for link in links:
            link.delay(0.1)
        scene.hold()


@fault
def flapping(scene: Scene) -> None:
    with scene.stage.faulty("flapping", *PLANES) as links:
        for link in links:
            link.flap(scene.random.uniform(0.2, 0.6))
        scene.hold(2)


@fault
def resets(scene: Scene) -> None:
    with scene.stage.faulty("resets", *PLANES) as links:
        for _ in range(15):
            scene.random.choice(links).reset()
            time.sleep(scene.random.uniform(0.05, 0.25))


@fault
def half_closed(scene: Scene) -> None:
    with scene.stage.faulty("half closed", *PLANES) as links:
        for link, way in itertools.product(links, WAYS):
            link.half_close(way)
            time.sleep(0.1)


@fault
def swizzle(scene: Scene) -> None:
    """Links go one by one, and come back one by one in another order."""
    names = scene.random.sample([*PLANES, *AGENTS], 4)
    with scene.stage.faulty("clogged one by one", *names) as links:
        for link in links:
            link.hold()
            time.sleep(scene.random.uniform(0.1, 0.5))
        for link in scene.random.sample(links, len(links)):
            link.heal()
            time.sleep(scene.random.uniform(0.1, 0.5))


# Redis, keeping what it has


def _restart_redis(scene: Scene, **settings: str) -> None:
    stage = scene.stage
    stage.note(f"kill -9 Redis ({settings or 'as it is'})")
    stage.node.kill()
    scene.hold()
    stage.node.start(settings)


@fault
def redis_killed_everysec(scene: Scene) -> None:
    _restart_redis(scene)
    scene.answers_again(lossy=False)


@fault
def redis_killed_always(scene: Scene) -> None:
    scene.stage.node.command("CONFIG", "SET", "appendfsync", "always")
    scene.hold()
    _restart_redis(scene)
    scene.answers_again(lossy=False)


@fault
def redis_paused(scene: Scene) -> None:
    scene.stage.note("SIGSTOP Redis")
    scene.stage.node.pause()
    scene.hold()
    scene.stage.node.resume()
    scene.answers_again(lossy=False)


@fault
def redis_memory_full(scene: Scene) -> None:
    scene.stage.note("maxmemory 1mb")
    scene.stage.node.command("CONFIG", "SET", "maxmemory", "1mb")
    scene.hold()
    scene.stage.node.command("CONFIG", "SET", "maxmemory", "0")
    scene.answers_again(lossy=False)


@fault
def redis_refuses_scripts(scene: Scene) -> None:
    scene.stage.note("SCRIPT FLUSH")
    scene.stage.node.command("SCRIPT", "FLUSH")
    scene.hold(0.3)


@fault
def failover(scene: Scene) -> None:
    """To a replica that has everything: acknowledged or not, nobody writes meanwhile."""
    new = _replica(scene)
    with scene.stage.faulty("held for a failover", *PLANES) as links:
        for link in links:
            link.hold()
        time.sleep(0.3)
        new.command("REPLICAOF", "NO", "ONE")
        _switch(scene, new)
    scene.answers_again(lossy=False)


# Redis, losing what it had


@fault
def redis_killed_without_aof(scene: Scene) -> None:
    """It comes back empty."""
    scene.stage.node.command("CONFIG", "SET", "appendonly", "no")
    _restart_redis(scene, appendonly="no")
    scene.answers_again(lossy=True)


@fault
def redis_restarted_empty(scene: Scene) -> None:
    stage = scene.stage
    stage.note("Redis restarted empty")
    stage.node.kill()
    stage.node.forget()
    scene.hold()
    stage.node.start({"appendonly": "yes"})
    scene.answers_again(lossy=True)


@fault
def flushall(scene: Scene) -> None:
    scene.stage.note("FLUSHALL")
    scene.stage.node.command("FLUSHALL")
    scene.answers_again(lossy=True)


@fault
def flushall_while_the_leader_sleeps(scene: Scene) -> None:
    with scene.stage.paused(scene.stage.leading()):
        scene.stage.note("FLUSHALL")
        scene.stage.node.command("FLUSHALL")
        scene.answers_again(lossy=True)
        scene.hold()


@fault
def redis_lost_its_tail(scene: Scene) -> None:
    """As a power cut does with `appendfsync everysec`."""
    stage = scene.stage
    stage.note("Redis killed; the end of its file is lost")
    stage.node.kill()
    stage.node.lose_tail(scene.random.randrange(2_000, 20_000))
    stage.node.start({"aof-load-truncated": "yes", "appendonly": "yes"})
    scene.answers_again(lossy=True)


@fault
def stale_failover(scene: Scene) -> None:
    """To a replica that was cut off for a while; new entries then pass the old head."""
    new = _replica(scene)
    scene.stage.note("replica is cut off")
    new.command("REPLICAOF", "NO", "ONE")
    scene.hold()
    _switch(scene, new)
    scene.answers_again(lossy=True)


@fault
def two_masters(scene: Scene) -> None:
    """The old one goes on being written by some, then everybody is led to the new one."""
    new = _replica(scene)
    new.command("REPLICAOF", "NO", "ONE")
    moved = scene.random.sample(PLANES, 2)
    scene.stage.note(f"two masters: {', '.join(moved)} see the new one")
    scene.stage.lead_to(new, *moved)
    scene.hold()
    _switch(scene, new)
    scene.answers_again(lossy=True)


@fault
def log_trimmed_past_readers(scene: Scene) -> None:
    stage = scene.stage
    zone = scene.zone()
    with stage.faulty("cut", zone) as links:
        for link in links:
            link.cut()
        scene.hold()
        stage.note("global's log trimmed to its last entry")
        stage.node.command("XTRIM", "{zm}:global:log", "MAXLEN", "1")
    scene.answers_again(lossy=True)


@fault
def entry_deleted(scene: Scene) -> None:
    """XDEL of what a reader has not read yet."""
    stage = scene.stage
    with stage.faulty("cut", scene.zone()) as links:
        for link in links:
            link.cut()
        scene.hold()
        found = stage.node.command("XREVRANGE", "{zm}:global:log", "+", "-", "COUNT", "5")
        ids = [line.decode() for line in found.split(b"\r\n") if _is_position(line)]
        stage.note(f"XDEL {ids[-1]}")
        stage.node.command("XDEL", "{zm}:global:log", ids[-1])
    scene.answers_again(lossy=True)


def _is_position(line: bytes) -> bool:
    term, dash, seq = line.partition(b"-")
    return bool(dash) and term.isdigit() and seq.isdigit()


def _replica(scene: Scene) -> RedisNode:
    """The other Redis, as a replica in step."""
    stage = scene.stage
    old = stage.node
    new = next(node for node in stage.nodes if node is not old)
    new.kill()
    new.forget()
    new.start({"appendonly": "yes"})
    new.command("REPLICAOF", HOST, str(old.port))
    eventually(lambda: b"master_link_status:up" in new.command("INFO", "replication"), 15)
    scene.hold(0.3)
    return new


def _switch(scene: Scene, new: RedisNode) -> None:
    stage = scene.stage
    old = stage.node
    stage.note("everybody sees the new master")
    stage.lead_to(new)
    old.kill()


# Disks


def _limit(process: Process, size: int) -> None:
    """No file of the process grows beyond this; -1: no limit. The soft limit: it can be lifted."""
    soft = resource.RLIM_INFINITY if size < 0 else size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


def _disk_full(scene: Scene, name: str) -> None:
    stage = scene.stage
    sizes = [path.stat().st_size for path in _files(stage, name)]
    stage.note(f"disk full: {name}")
    _limit(stage[name], min(sizes, default=1) // 2)
    scene.hold()
    _limit(stage[name], -1)
    stage.note(f"room again: {name}")


def _files(stage: Stage, name: str) -> list[Path]:
    return [path for path in stage.data_dir(name).rglob("*") if path.is_file()]


@fault
def zone_disk_full(scene: Scene) -> None:
    _disk_full(scene, scene.zone())


@fault
def leader_disk_full(scene: Scene) -> None:
    _disk_full(scene, scene.stage.leading())


@fault
def agent_disk_full(scene: Scene) -> None:
    _disk_full(scene, f"{scene.zone()}-agent")


def _damaged(scene: Scene, name: str, pattern: str, damage: Callable[[Path], None]) -> None:
    stage = scene.stage
    stage.kill(name)
    for path in stage.data_dir(name).glob(pattern):
        damage(path)
        stage.note(f"{damage.__name__.strip('_')} {path.name} of {name}")
    stage.back(name)


def _torn(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)


def _flipped(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        octet = file.read(1) or b"\0"
        file.seek(path.stat().st_size // 2)
        file.write(bytes([octet[0] ^ 0x10]))


@fault
def agent_cache_torn(scene: Scene) -> None:
    _damaged(scene, f"{scene.zone()}-agent", "map.zonedp", _torn)


@fault
def agent_cache_flipped(scene: Scene) -> None:
    _damaged(scene, f"{scene.zone()}-agent", "map.zonedp", _flipped)


@fault
def zone_copy_torn(scene: Scene) -> None:
    _damaged(scene, scene.zone(), "global.db", _torn)


@fault
def zone_copy_flipped(scene: Scene) -> None:
    _damaged(scene, scene.zone(), "global.db", _flipped)


@fault
def global_copy_torn(scene: Scene) -> None:
    _damaged(scene, scene.random.choice(GLOBALS), "global.db", _torn)


@fault
def global_copy_flipped(scene: Scene) -> None:
    _damaged(scene, scene.random.choice(GLOBALS), "global.db", _flipped)


def _own_damaged(scene: Scene, damage: Callable[[Path], None]) -> None:
    """What had gone up comes back from global; nothing else is registered meanwhile."""
    with scene.quiet():
        scene.hold()
        _damaged(scene, scene.zone(), "own.db", damage)


@fault
def own_log_torn(scene: Scene) -> None:
    _own_damaged(scene, _torn)


@fault
def own_log_flipped(scene: Scene) -> None:
    _own_damaged(scene, _flipped)


@fault
def own_log_flipped_at_its_end(scene: Scene) -> None:
    """In what was written last, which is in the write-ahead log."""
    with scene.quiet():
        scene.hold()
        _damaged(scene, scene.zone(), "own.db-wal", _flipped)


@fault
def zone_data_lost(scene: Scene) -> None:
    """What had gone up comes back from global; the load of that zone stands still meanwhile."""
    stage, zone = scene.stage, scene.zone()
    with scene.quiet():
        scene.hold()
        stage.kill(zone)
        stage.note(f"data of {zone} removed")
        stage.forget(zone)
        stage.back(zone)


@fault
def global_data_lost(scene: Scene) -> None:
    stage, name = scene.stage, scene.random.choice(GLOBALS)
    stage.kill(name)
    stage.note(f"data of {name} removed")
    stage.forget(name)
    stage.back(name)


@fault
def everybody_new_after_flushall(scene: Scene) -> None:
    """Who comes with nothing to a log that was founded again must find all that was before."""
    stage = scene.stage
    flushall(scene)
    eventually(stage.leader, 15, stage, *GLOBALS)
    eventually(lambda: b":0" not in stage.node.command("EXISTS", "{zm}:global:log"), 15)
    with scene.quiet():
        scene.hold()
        for name in (stage.standby(), stage.leading(), scene.zone()):
            stage.kill(name)
            stage.forget(name)
            stage.note(f"data of {name} removed")
            stage.back(name)
    scene.answers_s, scene.lossy = None, False  # healing is that of the last of them


# Claims


@fault
def two_control_planes(scene: Scene) -> None:
    """A second control plane under a living zone's name: it must end by itself."""
    stage, zone = scene.stage, scene.zone()
    stage.note(f"a second control plane of {zone}")
    second = stage.second(zone)
    second.start()
    try:
        code = second.wait(30)
    finally:
        second.kill()
    stage.note(f"it ended with {code}")
    assert code == 2, f"the second control plane of {zone} ended with {code}"
