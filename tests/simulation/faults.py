"""What goes wrong in a mesh: processes, links, clocks, stores and disks."""

from __future__ import annotations

from tests.scenarios.agents import MESH
from tests.scenarios.losses import lose_log
from tests.scenarios.nodes import GlobalNode, ZoneNode
from tests.simulation.carrying import Carrying
from zonecp.uplink import Uplink
from zonemesh.log.memory import MemoryStore, Way
from zonemesh.model import START, Change, Key
from zonemesh.travel import own_log, up_log

BY_FEW = "not every replica's disk has what operators made last"


class Faults(Carrying):
    """The operations of all other groups."""

    # Processes

    async def do_kill(self, name: str, steps: int) -> str | None:
        node = self.node(name)
        if not node.alive:
            return "is dead"
        node.kill_after(steps)
        return None

    async def do_kill_leader(self, steps: int) -> str:
        for node in self.world.replicas:
            if node.leads:
                node.kill_after(steps)
                return node.name
        return "nobody leads"

    async def do_start(self) -> str:
        dead = [node for node in self.world.nodes if not node.alive]
        for node in dead:
            node.start()
        return ", ".join(node.name for node in dead)

    async def do_stop(self, name: str) -> str | None:
        node = self.node(name)
        if not node.running or node.frozen:
            return "does not run"
        await node.stop()
        return None

    async def do_freeze(self, name: str) -> str | None:
        node = self.node(name)
        if not node.alive:
            return "is dead"
        node.freeze()
        return None

    async def do_thaw(self) -> str:
        frozen = [node for node in self.world.nodes if node.alive and node.frozen]
        for node in frozen:
            node.thaw()
        return ", ".join(node.name for node in frozen)

    # Links

    async def do_cut(self, name: str, way: Way) -> None:
        self.node(name).cut(way)

    async def do_heal(self, name: str) -> None:
        self.node(name).heal()

    async def do_cut_store(self) -> None:
        self.world.store.cut(everyone=True)

    async def do_heal_store(self) -> None:
        self.world.store.heal(everyone=True)

    async def do_slow(self, name: str, by_s: float) -> None:
        self.node(name).slow_down(by_s)

    async def do_lose_append(self, name: str, effect: str) -> None:
        self.node(name).link.fail_next_append(effect)  # type: ignore[arg-type]

    async def do_redeliver(self, name: str) -> None:
        self.node(name).link.redeliver()

    async def do_read_again(self, name: str, entries: int) -> None:
        self.node(name).link.read_again(entries)

    async def do_skew(self, name: str, offset_ms: int) -> None:
        self.node(name).wall_offset_ms = offset_ms

    # Global's store

    async def do_trim(self, log: str, entries: int) -> str | None:
        if log == "global":
            # What is on no disk yet nobody could bring back.
            heads = [node.disk._server.data.log(log).head for node in self.world.replicas]
            safe = max((head.position for head in heads if head is not None), default=START)
            stream = self.world.store._server.data.log(log).stream
            held = [] if stream is None else [raw.position for raw in stream.raws]
            entries = max(entries, sum(position > safe for position in held))
        self.world.store.trim_to(log, entries)
        return f"to {entries}"

    async def do_drop_lease(self) -> None:
        self.world.store.delete_key("global", "leader")

    async def do_roll_back_up(self, zone: str, lost: int) -> str | None:
        return self._roll_back(up_log(zone), lost)

    async def do_roll_back_global(self, lost: int) -> str | None:
        if not self.replicated():
            return BY_FEW
        return self._roll_back("global", lost)

    def _roll_back(self, log: str, lost: int) -> str | None:
        stream = self.world.store._server.data.log(log).stream
        held = 0 if stream is None else len(stream.raws)
        if held <= lost:
            return f"has {held} entries"
        self.world.store.roll_back(log, held - lost)
        return None

    async def do_lose_up(self, zone: str) -> None:
        lose_log(self.world.store, up_log(zone))

    async def do_lose_snapshots(self, log: str) -> str | None:
        if log == "global" and not self._whole(log):
            return "its beginning is trimmed"
        for part in ("snapshots", "chunks"):
            self.world.store.delete_key(log, part)
        return None

    def _whole(self, log: str) -> bool:
        stream = self.world.store._server.data.log(log).stream
        return bool(stream and stream.raws and stream.raws[0].position.seq == 0)

    async def do_corrupt_up(self, zone: str) -> str | None:
        stream = self.world.store._server.data.log(up_log(zone)).stream
        if stream is None or not stream.raws:
            return "is not there"
        last = stream.raws[-1]
        stream.raws[-1] = last._replace(data=last.data[:-3] + b"xyz")
        return str(last.position)

    async def do_forge(self, zone: str, victim: str, number: int) -> str | None:
        """A compromised zone writes what is another's: a record, and a removal."""
        node = self.acting(zone)
        if zone == victim or not node.running or node.zone.plane.uplink is None:
            return "cannot"
        key = Key(MESH, victim, "", f"{victim}-{number}").packed
        other = Key(MESH, victim, "", f"{victim}-{(number + 1) % 8}").packed
        _forge(node.zone.plane.uplink, node, key, other)
        return None

    async def do_replicate(self) -> None:
        self.clone = self.world.store.clone()

    async def do_fail_over(self) -> str | None:
        if self.clone is None:
            return "no replica"
        if not self.replicated():
            return BY_FEW
        self.world.store.restore(self.clone)
        return None

    async def do_flush(self) -> str | None:
        if not self.replicated():
            return BY_FEW
        self.world.store.flush()
        return None

    async def do_lose_global(self, part: str) -> str | None:
        if not self.replicated():
            return BY_FEW
        self.world.store.delete_key("global", part)  # type: ignore[arg-type]
        return None

    # A zone's own store, where several control planes share one

    async def do_cut_own(self, zone: str) -> None:
        for store in self._own_stores(zone):
            store.cut(everyone=True)

    async def do_heal_own(self, zone: str) -> None:
        for store in self._own_stores(zone):
            store.heal(everyone=True)

    async def do_drop_own_lease(self, zone: str) -> None:
        for store in self._own_stores(zone):
            store.delete_key(own_log(zone), "leader")

    async def do_flush_own(self, zone: str) -> str | None:
        for store in self._own_stores(zone):
            if not self.own_replicated(zone):
                return BY_FEW
            store.flush()
        return None

    async def do_roll_back_own(self, zone: str, lost: int) -> str | None:
        for store in self._own_stores(zone):
            stream = store._server.data.log(own_log(zone)).stream
            held = 0 if stream is None else len(stream.raws)
            if held <= lost:
                return f"has {held} entries"
            if not self.own_replicated(zone):
                return BY_FEW
            store.roll_back(own_log(zone), held - lost)
        return None

    def _own_stores(self, zone: str) -> list[MemoryStore]:
        store = self.world.own_stores.get(zone)
        return [] if store is None else [store]

    # Disks

    async def do_lose_disk(self, zone: str) -> str | None:
        """Only of a zone whose records global has merged: what nobody else holds is gone."""
        node = self.world[zone]
        if node.own_store is None and not self.merged(zone):
            return "it has what nobody else has"
        if node.alive:
            node.kill()
        node.lose_disk()
        return None

    async def do_lose_copy(self, name: str) -> str | None:
        """A replica's whole disk, or the copy of global's log on a zone's."""
        node = self.node(name)
        if isinstance(node, GlobalNode):
            others = [
                each
                for each in self.world.replicas
                if each is not node and each.disk._server.data.log("global").head is not None
            ]
            if not others:
                return "no other replica has one"
        if node.alive:
            node.kill()
        if isinstance(node, GlobalNode):
            node.lose_disk()
        else:
            lose_log(node.disk, "global")
        return None

    async def do_back_up(self, zone: str) -> None:
        self.backups[zone] = self.world[zone].disk.clone()

    async def do_set_back(self, zone: str) -> str | None:
        backup = self.backups.get(zone)
        if backup is None:
            return "no backup"
        node = self.world[zone]
        if node.own_store is None and not self.merged(zone):
            return "it has what nobody else has"
        if node.alive:
            node.kill()
        node.set_disk_back(backup)
        return None


def _forge(uplink: Uplink, node: ZoneNode, key: str, removed: str) -> None:
    """Have the next news of a zone hold records that are not its own."""
    exported = uplink._exported
    payload = b"\x80"

    def forged(entries: object) -> tuple[list[Change], object]:
        changes, last = exported(entries)  # type: ignore[arg-type]
        if not changes:
            return changes, last
        uplink._exported = exported  # type: ignore[method-assign]
        forgeries = [Change("MeshService", key, payload), Change("MeshService", removed, None)]
        return [*changes, *forgeries], last

    uplink._exported = forged  # type: ignore[method-assign,assignment]
