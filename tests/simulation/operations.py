"""What can be done to a mesh, drawn from a seed: values, so that any of them can be left out.

A plan never looks at the world: an operation that means nothing where it comes is skipped then. So
what is left of a plan after some operations were removed is a plan as well (`shrinking`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ZONES = ("west", "east", "north")
SERVICES = 8
"""Names that one zone's services take turns in."""
MANY = 24
"""Services registered at once: more than the agents' guard lets go in silence."""
PAUSES_S = (0.0, 0.002, 0.02, 0.2, 0.5, 1.0, 2.0)
LONG_S = 11.0
"""Longer than a lease, a feed's patience and the time after which a zone counts as offline."""
JUMPS_MS = (-3_600_000, -600_000, -90_000, 90_000, 600_000, 86_400_000)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that is done, and how long nothing else is done after it."""

    kind: str
    args: tuple[Any, ...] = ()
    then_s: float = 0.0

    def __str__(self) -> str:
        told = ", ".join(map(str, self.args))
        return f"{self.kind}({told})" + (f", then {self.then_s} s" if self.then_s else "")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a plan is for."""

    globals: int = 2
    zones: tuple[str, ...] = ZONES[:2]
    snapshot_entries: int = 20_000
    quarantine_s: float = 86_400.0
    pool: str = "241.0.0.0/16"

    @property
    def replicas(self) -> tuple[str, ...]:
        return tuple(f"global-{number}" for number in range(1, self.globals + 1))

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.replicas + self.zones

    @property
    def logs(self) -> tuple[str, ...]:
        return ("global", *(f"zone:{zone}:up" for zone in self.zones))

    @property
    def reuses(self) -> bool:
        """Whether addresses may find other keys before the end."""
        return self.quarantine_s < 3_600.0


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    shape: Shape
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}, {self.shape}", *map(str, self.operations)])


Draw = Callable[[random.Random, Shape], Sequence[Operation]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation: how often, and what it may be."""

    group: str
    weight: float
    draw: Draw


def _one(kind: str, *draws: Callable[[random.Random, Shape], Any]) -> Draw:
    def draw(rng: random.Random, shape: Shape) -> Sequence[Operation]:
        args = tuple(each(rng, shape) for each in draws)
        return [Operation(kind, args, rng.choice(PAUSES_S))]

    return draw


def _from(*values: Any) -> Callable[[random.Random, Shape], Any]:
    return lambda rng, _: rng.choice(values)


def _zone(rng: random.Random, shape: Shape) -> str:
    return rng.choice(shape.zones)


def _node(rng: random.Random, shape: Shape) -> str:
    return rng.choice(shape.nodes)


def _replica(rng: random.Random, shape: Shape) -> str:
    return rng.choice(shape.replicas)


def _log(rng: random.Random, shape: Shape) -> str:
    return rng.choice(shape.logs)


def _service(rng: random.Random, shape: Shape) -> int:
    del shape
    return rng.randrange(SERVICES)


def _steps(rng: random.Random, shape: Shape) -> int:
    """At once, or between any two of a process's next steps."""
    del shape
    return rng.choice((0, rng.randrange(40), rng.randrange(400)))


def _register(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    count = rng.choice((1, 1, 1, 3, MANY))
    first = 100 if count == MANY else rng.randrange(SERVICES)
    return [Operation("register", (_zone(rng, shape), first, count), rng.choice(PAUSES_S))]


def _swizzle(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    """Stop the links of some nodes one by one, and restore them in another order."""
    nodes = rng.sample(shape.nodes, rng.randint(2, len(shape.nodes)))
    again = rng.sample(nodes, len(nodes))
    pauses = [rng.choice((0.05, 0.3, 1.0)) for _ in range(2 * len(nodes))]
    operations = [
        *(Operation("cut", (node, rng.choice(("both", "there", "back")))) for node in nodes),
        *(Operation("heal", (node,)) for node in again),
    ]
    return [
        Operation(each.kind, each.args, pause)
        for each, pause in zip(operations, pauses, strict=True)
    ]


def _flap(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    """A link that goes and comes, each time for as long as it takes to notice."""
    node = _node(rng, shape)
    pause = rng.choice((0.3, 1.0, 3.0))
    once = [Operation("cut", (node, "both"), pause), Operation("heal", (node,), pause)]
    return once * rng.randint(2, 3)


def _outage(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    del shape
    return [Operation("cut_store", (), rng.choice((0.5, 3.0, LONG_S))), Operation("heal_store")]


def _fail_over(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    """To a replica that has heard nothing since it was taken; in between, what is lost then."""
    pause = rng.choice((0.02, 0.5, 2.0))
    lost = [*_register(rng, shape)][:1] if rng.random() < 0.7 else []
    return [Operation("replicate", (), pause), *lost, Operation("fail_over", (), 1.0)]


def _old_disk(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    """A backup, some time, and the disk set back to it."""
    zone, removed = _zone(rng, shape), _service(rng, shape)
    between = [*_register(rng, shape), Operation("remove", (zone, removed), 1.0)]
    return [
        Operation("register", (zone, removed, 1), 0.2),
        Operation("back_up", (zone,), 0.5),
        *(each for each in between if rng.random() < 0.8),
        Operation("set_back", (zone,), 1.0),
    ]


def _pause(rng: random.Random, shape: Shape) -> Sequence[Operation]:
    """SIGSTOP past the lease, then SIGCONT."""
    return [
        Operation("freeze", (_node(rng, shape),), rng.choice((0.5, 2.5, 6.0))),
        Operation("thaw"),
    ]


KINDS: dict[str, Kind] = {
    # What users and agents do
    "register": Kind("clients", 9, _register),
    "remove": Kind("clients", 4, _one("remove", _zone, _service)),
    "change": Kind("clients", 1, _one("change", _zone, _service, _from(81, 8080))),
    "repeat": Kind("clients", 1, _one("repeat", _zone)),
    "share": Kind("clients", 1.5, _one("share", _zone)),
    "unshare": Kind("clients", 0.7, _one("unshare", _zone)),
    "run_workload": Kind("clients", 1.5, _one("run_workload", _zone, _from(0, 1))),
    "stop_workload": Kind("clients", 0.7, _one("stop_workload", _zone, _from(0, 1))),
    "restart_agent": Kind("clients", 1.5, _one("restart_agent", _zone)),
    "new_agent": Kind("clients", 0.5, _one("new_agent", _zone)),
    # Processes
    "kill": Kind("processes", 3, _one("kill", _node, _steps)),
    "kill_leader": Kind("processes", 1.5, _one("kill_leader", _steps)),
    "start": Kind("processes", 5, _one("start")),
    "stop": Kind("processes", 1, _one("stop", _node)),
    "freeze": Kind("processes", 1, _one("freeze", _node)),
    "pause": Kind("processes", 2, _pause),
    "thaw": Kind("processes", 2, _one("thaw")),
    # Links
    "cut": Kind("links", 2, _one("cut", _node, _from("both", "there", "back"))),
    "heal": Kind("links", 3, _one("heal", _node)),
    "swizzle": Kind("links", 0.7, _swizzle),
    "flap": Kind("links", 0.7, _flap),
    "outage": Kind("links", 0.5, _outage),
    "slow": Kind("links", 1, _one("slow", _node, _from(0.0, 0.0, 0.1, 0.6))),
    "lose_append": Kind("links", 2, _one("lose_append", _node, _from("before", "after"))),
    "redeliver": Kind("links", 2, _one("redeliver", _node)),
    "read_again": Kind("links", 1, _one("read_again", _node, _from(1, 3, 10))),
    # Clocks
    "skew": Kind("clocks", 2, _one("skew", _node, _from(0, *JUMPS_MS))),
    # Global's store
    "trim": Kind("store", 1.5, _one("trim", _log, _from(1, 3, 10))),
    "drop_lease": Kind("store", 1.5, _one("drop_lease")),
    "roll_back_up": Kind("store", 1.5, _one("roll_back_up", _zone, _from(1, 2, 5))),
    "lose_up": Kind("store", 0.7, _one("lose_up", _zone)),
    "lose_snapshots": Kind("store", 0.7, _one("lose_snapshots", _log)),
    "corrupt_up": Kind("store", 0.7, _one("corrupt_up", _zone)),
    "forge": Kind("store", 1, _one("forge", _zone, _zone, _service)),
    # Global's log, or all of its store
    "roll_back_global": Kind("recovery", 1.5, _one("roll_back_global", _from(1, 2, 5))),
    "fail_over": Kind("recovery", 1.5, _fail_over),
    "flush": Kind("recovery", 1, _one("flush")),
    "lose_global": Kind("recovery", 1, _one("lose_global", _from("log", "head"))),
    # Disks
    "lose_disk": Kind("disks", 1.5, _one("lose_disk", _zone)),
    "lose_copy": Kind("disks", 1, _one("lose_copy", _node)),
    "set_back": Kind("disks", 1.5, _old_disk),
}
GROUPS = tuple(dict.fromkeys(kind.group for kind in KINDS.values()))


def plan(
    seed: int,
    *,
    length: int = 22,
    also: Collection[str] = (),
    never: Collection[str] = (),
    only: Collection[str] = GROUPS,
) -> Plan:
    """The plan of a seed: some groups of faults, each more or less often, over a small mesh.

    Not all groups every time: what happens often hides what happens after it.

    Args:
        seed: Any number.
        length: Drawn operations; some of them are several.
        also: Kinds or groups that are drawn for certain.
        never: Kinds that are not.
        only: Kinds and groups that may be; all of them are, then.
    """
    rng = random.Random(seed)
    shape = _shape(rng)
    favour = {
        group: rng.choice((0.3, 1.0, 1.0, 3.0))
        for group in GROUPS
        if group in ("clients", *also) or rng.random() < 0.5 or only is not GROUPS
    }
    weights = {
        name: kind.weight * favour.get(kind.group, 1.0)
        for name, kind in KINDS.items()
        if name not in never
        and (kind.group in only or name in only)
        and (name in also or kind.group in favour)
    }
    return Plan(seed, shape, tuple(_operations(rng, shape, weights, length)))


def _shape(rng: random.Random) -> Shape:
    # Every fourth one gives addresses again, and has few of them.
    quarantine_s, pool = rng.choice(((86_400.0, "241.0.0.0/16"),) * 3 + ((12.0, "241.0.0.0/28"),))
    return Shape(
        globals=rng.choice((1, 2, 2, 3)),
        zones=ZONES[: rng.choice((2, 2, 3))],
        # Every third run with logs that are trimmed all the time.
        snapshot_entries=rng.choice((12, 20_000, 20_000)),
        quarantine_s=quarantine_s,
        pool=pool,
    )


def _operations(
    rng: random.Random, shape: Shape, weights: dict[str, float], length: int
) -> Iterator[Operation]:
    drawn = rng.choices(list(weights), list(weights.values()), k=length)
    for name in drawn:
        yield from KINDS[name].draw(rng, shape)
