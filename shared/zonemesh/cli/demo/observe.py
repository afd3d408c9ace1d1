"""Looks at every process a few times a second, for the live screen."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import aiohttp

from zonemesh.cli.demo.mesh import AGENTS, GLOBALS, WEB, WEB_AGENT, ZONES, Document
from zonemesh.cli.demo.ports import HOST
from zonemesh.cli.demo.story import Story

EVERY_S = 0.4
_NAMES = re.compile(rb"^zonedp_dns_names (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sight:
    """One process as last seen."""

    name: str
    state: str = "starting"
    style: str = "yellow"
    where: str = ""
    detail: str = ""


class Observer:
    def __init__(self, story: Story) -> None:
        self._story = story
        self.sights = {name: Sight(name) for name in (*GLOBALS, *ZONES, *AGENTS)}

    async def run(self) -> None:
        while True:
            async with self._story.measuring:
                await self._look()
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        mesh = self._story.mesh
        states = {name: await mesh.state(name) for name in (*GLOBALS, *ZONES)}
        leading = next((s for n in GLOBALS if (s := states[n]) and s["leader"]), None)
        for name in GLOBALS:
            self.sights[name] = self._global(name, states[name])
        for name in ZONES:
            self.sights[name] = self._zone(name, states[name], leading)
        for name in AGENTS:
            self.sights[name] = await self._agent(name, name.removesuffix("-agent"))
        if self._story.web_url:
            self.sights[WEB_AGENT] = await self._agent(WEB_AGENT, WEB)

    def _global(self, name: str, state: Document | None) -> Sight:
        where = self._story.mesh.urls[name]
        if state is None:
            return self._silent(name, where)
        at = f"log at {state['cursor'].partition('.')[2]}"
        if state["leader"]:
            return Sight(name, "leads", "bold green", where, at)
        return Sight(name, "stands by", "cyan", where, at)

    def _zone(self, name: str, state: Document | None, leading: Document | None) -> Sight:
        where = self._story.mesh.urls[name]
        if state is None:
            return self._silent(name, where)
        own = state["own"]["records"].get("MeshService", 0)
        other = state["global"]["records"].get("MeshService", 0)
        elsewhere = "east" if name == "west" else "west"
        counts = ((own, ""), (other, f" of {elsewhere}"))
        detail = ", ".join(f"{_count(n, 'service')}{of}" for n, of in counts if n)
        if leading is None:
            return Sight(name, "on its own", "yellow", where, detail)
        online = leading["zones"].get(name, {}).get("online", False)
        return Sight(
            name, *(("online", "green") if online else ("joining", "yellow")), where, detail
        )

    async def _agent(self, name: str, asked: str) -> Sight:
        mesh = self._story.mesh
        where = f"dns {HOST}:{mesh.dns_port(asked)}"
        try:
            async with mesh.session.get(f"{mesh.diagnostics_url(name)}/metrics") as response:
                found = _NAMES.search(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return self._silent(name, where)
        names = round(float(found[1])) if found else 0
        return Sight(name, "answers", "green", where, _count(names, "name"))

    def _silent(self, name: str, where: str) -> Sight:
        child = next((c for c in self._story.mesh.processes if c.name == name), None)
        if child is None:
            return Sight(name, "to come", "dim")
        if child.running:
            return Sight(name, "starting", "yellow", where)
        return Sight(name, "killed" if child.killed else "ended", "bold red", where)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
