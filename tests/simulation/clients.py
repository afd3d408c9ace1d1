"""What users, agents and operators do to a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.scenarios.agents import MESH
from tests.simulation.agents import SimulatedAgent
from tests.simulation.carrying import Carrying
from tests.simulation.simulatedworld import OTHER_KINDS, SHARED
from zonemesh.deciding import Delete, Put
from zonemesh.hostnames import MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE
from zonemesh.model import Key


class Clients(Carrying):
    """The operations of the group `clients`."""

    async def do_register(self, zone: str, first: int, count: int) -> str:
        if self.shape.reuses:
            count = min(count, 3)
        wrap = first + count if first >= 100 else 8
        names = [f"{zone}-{number % wrap}" for number in range(first, first + count)]
        return await self._register(zone, *dict.fromkeys(names))

    async def _register(self, zone: str, *names: str) -> str:
        node = self.acting(zone)
        whole = {f"{zone}/{name}" for name in names}
        self.absent -= whole
        self.watch.made.update(names)
        outcome = await self.attempt(node, lambda: node.register(*names))
        if outcome == "done":
            self.present |= whole
        return outcome

    async def do_remove(self, zone: str, number: int) -> str:
        return await self._remove(zone, f"{zone}-{number}")

    async def _remove(self, zone: str, name: str) -> str:
        node = self.acting(zone)
        if not node.running or name not in node.services:
            return "is not there"
        self.present.discard(f"{zone}/{name}")
        outcome = await self.attempt(node, lambda: node.remove(name))
        if outcome == "done":
            self.absent.add(f"{zone}/{name}")
        return outcome

    async def do_change(self, zone: str, number: int, port: int) -> str:
        node, name = self.acting(zone), f"{zone}-{number}"
        if f"{zone}/{name}" not in self.present:
            return "is not there"
        return await self.attempt(node, lambda: node.write(node.put(name, port)))

    async def do_repeat(self, zone: str) -> str:
        """Register again, as it is; a log must not grow by it (I12)."""
        node = self.acting(zone)
        if not node.running or node.frozen or not node.zone.leadership.writer:
            return "does not run"
        names = sorted(name for name in node.services if name.startswith(f"{zone}-"))
        registry = node.zone.state.registry
        again = []
        for name in names:
            packed = registry.get("MeshService", node.key(name).packed)
            if packed is not None and b"\xa4port\x50" in packed:
                again.append(node.put(name))
        heard: list[bool] = []

        class Note:
            def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
                heard.append(kind == "MeshService")

        note = Note()
        registry._indexes.append(note)
        outcome = await self.attempt(node, lambda: node.write(*again))
        registry._indexes.remove(note)
        if any(heard):
            self.watch.violated("I12", f"{zone} wrote {sum(heard)} services that were the same")
        return f"{len(again)}: {outcome}"

    async def do_share(self, zone: str) -> str:
        return await self._register(zone, SHARED)

    async def do_unshare(self, zone: str) -> str:
        return await self._remove(zone, SHARED)

    async def do_run_workload(self, zone: str, number: int) -> str:
        node, service = self.acting(zone), f"shop-{number}"
        self.watch.made[service] += 1
        name = f"{zone}-workload-{number}"
        return await self.attempt(node, lambda: node.run_dataplane(name, service))

    async def do_stop_workload(self, zone: str, number: int) -> str:
        node = self.acting(zone)
        self.world.removals.add(f"shop-{number}")
        return await self.attempt(node, lambda: node.stop_dataplane(f"{zone}-workload-{number}"))

    async def do_restart_agent(self, zone: str, *, forget: bool = False) -> str | None:
        node = self.world[zone]
        agent = node.agents[0]
        assert isinstance(agent, SimulatedAgent)
        await agent.restart(forget=forget)
        if node.running:
            node._serve(agent)
        return None

    async def do_new_agent(self, zone: str) -> str | None:
        return await self.do_restart_agent(zone, forget=True)

    # Services of other kinds: external ones of a zone, and what operators make on global

    async def do_make_external(self, zone: str, number: int, port: int) -> str:
        spec = {"match": {"port": port}, "endpoints": [{"address": "192.0.2.1", "port": port}]}
        return await self._make(MESH_EXTERNAL_SERVICE, zone, number, spec)

    async def do_make_multi_zone(self, number: int, port: int) -> str:
        labels = {"kuma.io/display-name": f"shop-{number % 2}"}
        spec = {"selector": {"meshService": {"matchLabels": labels}}, "ports": [{"port": port}]}
        return await self._make(MESH_MULTI_ZONE_SERVICE, "", number, spec)

    async def do_drop_external(self, zone: str, number: int) -> str:
        return await self._drop(MESH_EXTERNAL_SERVICE, zone, number)

    async def do_drop_multi_zone(self, number: int) -> str:
        return await self._drop(MESH_MULTI_ZONE_SERVICE, "", number)

    async def _make(self, kind: str, zone: str, number: int, spec: Mapping[str, Any]) -> str:
        key = _key(kind, zone, number)
        whole = f"{zone}/{key.name}"
        self.absent.discard(whole)
        self.watch.made[key.name] += 1
        outcome = await self._write(zone, Put(kind, key, {}, spec))
        if outcome == "done":
            self.present.add(whole)
        return outcome

    async def _drop(self, kind: str, zone: str, number: int) -> str:
        key = _key(kind, zone, number)
        self.present.discard(f"{zone}/{key.name}")
        self.world.removals.add(key.name)
        outcome = await self._write(zone, Delete(kind, key))
        if outcome == "done":
            self.absent.add(f"{zone}/{key.name}")
        return outcome

    async def _write(self, zone: str, item: Put | Delete) -> str:
        if zone:
            node = self.acting(zone)
            return await self.attempt(node, lambda: node.write(item))
        leader = self.lead()
        if leader is None:
            return "nobody leads"
        return await self.attempt(leader, lambda: leader.write(item))


def _key(kind: str, zone: str, number: int) -> Key:
    """Names are unique in all the mesh: what agents lose is told by them."""
    return Key(MESH, zone, "", f"{zone or 'global'}-{OTHER_KINDS[kind]}-{number}")
