"""Threads that ask and look all the time, and note what they see in the history."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.bench.wire import question
from tests.chaos.history import Answer, Fed, Lag, Logged, Seen, State
from tests.chaos.load import MARK, Loads
from tests.chaos.stage import Stage
from tests.e2e.mesh import AGENTS, GLOBALS, HOST, PLANES, ZONES, at_home, elsewhere
from zonemesh.errors import LogFaultError, WireError
from zonemesh.ipam import BLOCK, Binding, Block, ipv4_text
from zonemesh.log.keys import Keys
from zonemesh.model import Cursor, Key, Position
from zonemesh.registry import Registry
from zonemesh.replica import follows
from zonemesh.travel import GLOBAL_LOG, up_log
from zonemesh.wire import Place, Sealed, decode

ASK_EVERY_S = 0.01
ANSWER_S = 2.0
"""Less than a resolver waits (5 s): an agent that was ended costs its asker as long."""

LOOK_EVERY_S = 0.4
READ_EVERY_S = 0.1
_HEADER = struct.Struct("!HHHHHH")
_VIPS = "vip."
_SERVICE = "vip.MeshService"


class Repeating(threading.Thread):
    """One step again and again, with a pause in between, until `end`."""

    def __init__(self, name: str, step: Callable[[], None], every_s: float) -> None:
        super().__init__(daemon=True, name=name)
        self._step = step
        self._every_s = every_s
        self._ended = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                self._step()
                if self._ended.wait(self._every_s):
                    return
        except BaseException as error:
            self.error = error
            raise

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=15)


class Asker:
    """Asks one agent for services of the load, every other time for one of the newest."""

    def __init__(self, stage: Stage, zone: str, loads: Loads, random: Random) -> None:
        self._stage = stage
        self._zone = zone
        self._loads = loads
        self._random = random
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((HOST, stage.dns[zone]))
        self._socket.settimeout(ANSWER_S)
        self._number = 0

    def step(self) -> None:
        known = self._loads.newest if self._number % 2 else self._loads.services
        if known:
            self._stage.history.answers.append(self.ask(self._random.choice(known)))

    def ask(self, service: str) -> Answer:
        zone, _, name = service.partition("/")
        asked = question(at_home(name) if zone == self._zone else elsewhere(name, zone))
        self._number = (self._number + 1) & 0xFFFF
        asked_s = time.monotonic()
        rcode, address = self._exchange(_HEADER.pack(self._number, 0x0100, 1, 0, 0, 0) + asked)
        got_s = time.monotonic()
        return Answer(asked_s, got_s, f"{self._zone}-agent", service, rcode, address)

    def _exchange(self, query: bytes) -> tuple[int | None, str | None]:
        try:
            self._socket.send(query)
            while True:
                data = self._socket.recv(4096)
                number, flags, _, answers, _, _ = _HEADER.unpack_from(data)
                if number == self._number:
                    address = socket.inet_ntoa(data[-4:]) if answers else None
                    return flags & 0xF, address
        except OSError:
            # Refused at once, where nobody listens: that must not become a busy loop.
            time.sleep(ASK_EVERY_S)
            return None, None

    def close(self) -> None:
        self._socket.close()


class Looker:
    """What control planes and agents say of themselves."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def addresses(self) -> None:
        for plane in PLANES:
            found = self._stage.services(plane, MARK)
            if found is not None:
                self._stage.history.seen.append(Seen(time.monotonic(), plane, found))

    def states(self) -> None:
        for plane in PLANES:
            state = self._stage.state(plane)
            held = state.get("global", state)
            if held.get("cursor", ".").startswith("."):
                continue
            cursor = Cursor.parse(held["cursor"])
            parts = _parts(held["parts"])
            if plane in GLOBALS:
                parts[""] = held["digest"]
            self._stage.history.states.append(
                State(time.monotonic(), plane, _plain(cursor), parts, 0)
            )

    def lags(self) -> None:
        """An operator's view: the age of an agent's map, which is that of every hop to it."""
        for zone in ZONES:
            agent = f"{zone}-agent"
            asked_s = time.monotonic()
            found = self._stage.metric(agent, "zonedp_map_age_seconds")
            got_s = time.monotonic()
            if self._stage.metric(agent, "zonedp_feed_connected").get(""):
                self._stage.history.fed.append(Fed(time.monotonic(), agent))
            if "" in found:
                self._stage.history.lags += [
                    Lag(asked_s, got_s, agent, origin, found[""]) for origin in ZONES
                ]


class LogReader:
    """Reads logs raw, straight from whichever Redis is the truth, and replays global's."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        keys = Keys()
        self._streams = {
            name: keys.of(name).log for name in (GLOBAL_LOG, *(up_log(zone) for zone in ZONES))
        }
        self._last = dict.fromkeys(self._streams, "0-0")
        self._client: redis.Redis | None = None
        self._port = 0
        self.registry: Registry | None = Registry()
        """Global's state as its log says; None once entries were missed."""

    def step(self) -> None:
        try:
            self._read()
        except redis.RedisError:
            self._client = None

    def _read(self) -> None:
        if self._client is None or self._port != self._stage.node.port:
            self._port = self._stage.node.port
            self._client = redis.Redis(
                HOST, self._port, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)
            )
        for name, stream in self._streams.items():
            self._rewind(name, stream)
            while rows := self._rows(stream, f"({self._last[name]}"):
                at_s = time.monotonic()
                for number, fields in rows:
                    self._take(at_s, name, fields[b"e"])
                    self._last[name] = number.decode()

    def _rows(self, stream: str, start: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        assert self._client is not None
        rows = self._client.xrange(stream, min=start, count=500)
        # redis-py types it as all that its options could make of it.
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", rows)

    def _rewind(self, name: str, stream: str) -> None:
        """Where the store has gone back in time, go back with it."""
        assert self._client is not None
        newest: Any = self._client.xrevrange(stream, count=1)
        end = newest[0][0].decode() if newest else "0-0"
        if Position.parse(end) < Position.parse(self._last[name]):
            self._last[name] = "0-0"

    def _take(self, at_s: float, name: str, data: bytes) -> None:
        try:
            sealed, _ = decode(data, b"")
        except WireError:
            return
        parts: dict[str, str] = {}
        if name == GLOBAL_LOG:
            self._replay(data)
            if self.registry is not None and self.registry.h == sealed.h:
                by_zone = {f"{k}/{zone}": v for (k, zone), v in self.registry.parts().items()}
                parts = {**_parts(by_zone), "": self.registry.digest}
        self._stage.history.logged.append(logged(at_s, name, sealed, parts))

    def _replay(self, data: bytes) -> None:
        registry = self.registry
        if registry is None:
            return
        place = Place(registry.incarnation, registry.position, registry.h)
        try:
            sealed, chained = decode(data, place.h)
            if follows(place, sealed, chained=chained):
                registry.apply(sealed)
        except LogFaultError:
            self.registry = None


def logged(at_s: float, name: str, sealed: Sealed, parts: dict[str, str]) -> Logged:
    bound: dict[str, str] = {}
    leased: dict[str, tuple[str, int, int]] = {}
    for change in sealed.entry.changes:
        if change.payload is None:
            continue
        key = Key.parse(change.key)
        if change.kind.startswith(_VIPS):
            address = Binding.unpack(change.payload).address
            if address is not None:
                service = f"{key.zone}/{key.name}"
                whose = service if change.kind == _SERVICE else f"{change.kind} {change.key}"
                bound[whose] = ipv4_text(address)
        elif change.kind == BLOCK:
            block = Block.unpack(change.payload)
            if not block.retired:
                leased[change.key] = (key.zone, block.first, block.size)
    entry = sealed.entry
    cursor = (entry.incarnation, tuple(entry.position))
    return Logged(at_s, name, cursor, sealed.h, bound, leased, parts)  # type: ignore[arg-type]


def _plain(cursor: Cursor) -> tuple[str, tuple[int, int]]:
    return cursor.incarnation, (cursor.position.term, cursor.position.seq)


def _parts(parts: dict[str, str]) -> dict[str, str]:
    """Those that every reader of global's log holds whole."""
    return {part: value for part, value in parts.items() if part.startswith(f"{_SERVICE}/")}


class Recorder:
    """All of them."""

    def __init__(self, stage: Stage, loads: Loads, seed: int) -> None:
        self._loads = loads
        self._stage = stage
        self._seed = seed
        self.askers = [Asker(stage, zone, loads, Random(f"{seed} asks {zone}")) for zone in ZONES]
        looker = Looker(stage)
        self.reader = LogReader(stage)
        self._threads = [
            *(
                Repeating(f"ask-{zone}", asker.step, ASK_EVERY_S)
                for zone, asker in zip(ZONES, self.askers, strict=True)
            ),
            Repeating("addresses", looker.addresses, 2 * LOOK_EVERY_S),
            Repeating("states", looker.states, LOOK_EVERY_S),
            Repeating("lags", looker.lags, LOOK_EVERY_S),
            Repeating("log", self.reader.step, READ_EVERY_S),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        for thread in self._threads:
            thread.end()
        for asker in self.askers:
            asker.close()
        for thread in self._threads:
            if thread.error is not None:
                raise thread.error

    def asked_afresh(self, services: Sequence[str]) -> list[Answer]:
        """Every agent about every service, by sockets of their own."""
        answers = []
        for zone in ZONES:
            asker = Asker(self._stage, zone, self._loads, Random(self._seed))
            answers += [asker.ask(service) for service in services]
            asker.close()
        return answers


def log_events(stage: Stage, *names: str) -> list[dict[str, Any]]:
    """Structured lines of processes' logs."""
    found: list[dict[str, Any]] = []
    for name in names or (*PLANES, *AGENTS):
        lines = stage[name].log.read_text(errors="replace").splitlines()
        found += [{"process": name, **json.loads(line)} for line in lines if line.startswith("{")]
    return found
