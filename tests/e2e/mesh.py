"""A mesh of real processes for tests: started, asked, killed and restarted one by one."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TypeVar, cast

import dns.exception
import dns.message
import dns.query
import dns.rcode
import redis
import yaml

from tests.patience import SLOWER
from tests.ports import free
from zonemesh.log.keys import Keys
from zonemesh.runtime.redisserver import find_redis_server, start_redis_server, wait_ready

T = TypeVar("T")

HOST = "127.0.0.1"
GLOBALS = ("g1", "g2")
ZONES = ("west", "east")
PLANES = (*GLOBALS, *ZONES)
AGENTS = ("west-agent", "east-agent")
START_S = 20.0
"""Two workers, two noisy cores, six interpreters each."""

PATIENCE_S = 10.0
"""Where a test does not state a bound of its own."""

ANSWER_S = 5.0
"""What a resolver waits for an answer (resolv.conf(5))."""

SILENCE_S = 2.0
"""After which an agent gives up on a feed; the shortest that may be configured."""

STOP_S = 8.0
POLL_S = 0.02


class Process:
    """One program with its own log; started again with `start`."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self._arguments = arguments
        self.log = log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert not self.running
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
            )

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def kill(self) -> None:
        """SIGKILL; no matter what state it is in."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(timeout=SLOWER * STOP_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Gracefully; the exit code."""
        assert self._popen is not None
        self._popen.send_signal(number)
        return self._popen.wait(timeout=SLOWER * STOP_S)

    def wait(self, timeout_s: float) -> int:
        assert self._popen is not None
        return self._popen.wait(timeout=SLOWER * timeout_s)

    def pause(self) -> None:
        assert self._popen is not None
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._popen is not None
        self._popen.send_signal(signal.SIGCONT)


class Mesh:
    """Two globals, zones west and east, and agents where a test starts them."""

    def __init__(
        self,
        directory: Path,
        *,
        global_config: Mapping[str, Any] | None = None,
        zone_config: Mapping[str, Any] | None = None,
        agent_config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Sections of configuration beside those that every process has; of agents, by zone."""
        self.directory = directory
        self._numbers = iter(free(16))
        self.redis_port = next(self._numbers)
        self._redis: subprocess.Popen[bytes] | None = None
        self.ports = {name: next(self._numbers) for name in PLANES}
        self._diagnostics = {name: next(self._numbers) for name in (*PLANES, *AGENTS)}
        self.dns = {zone: next(self._numbers) for zone in ZONES}
        self.processes: dict[str, Process] = {}
        for name in GLOBALS:
            self._add(name, "globalcp", global_config or {})
        for name in ZONES:
            self._add(
                name,
                "zonecp",
                {
                    "multizone": {"zone": {"name": name}},
                    "meshService": {"deletionGracePeriod": "1s"},
                    **(zone_config or {}),
                },
            )
        for zone in ZONES:
            self._add_agent(zone, (agent_config or {}).get(zone, {}))

    def _add(self, name: str, script: str, config: Mapping[str, Any]) -> None:
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**self.config(name), **config}))
        self.processes[name] = Process(
            name, [program(script), "run", "-c", str(path)], self.directory / f"{name}.log"
        )

    def configure(self, name: str, **sections: Any) -> None:
        """For the next start: sections that are set, or left out with None."""
        path = self.directory / f"{name}.yaml"
        config = {**yaml.safe_load(path.read_text()), **sections}
        given = {key: each for key, each in config.items() if each is not None}
        path.write_text(yaml.safe_dump(given))

    def add_zone(self, name: str) -> None:
        """Another zone's control plane; not started."""
        self.ports[name], self._diagnostics[name] = free(2)
        self._add(name, "zonecp", {"multizone": {"zone": {"name": name}}})

    def config(self, name: str) -> dict[str, Any]:
        return {
            "redis": {"url": f"redis://{HOST}:{self.redis_port}/0"},
            "dataDir": str(self.data_dir(name)),
            "apiServer": {"http": {"port": self.ports[name]}},
            "diagnostics": {"port": self._diagnostics[name]},
        }

    def data_dir(self, name: str) -> Path:
        return self.directory / f"{name}.data"

    def _add_agent(self, zone: str, sections: Mapping[str, Any]) -> None:
        name = f"{zone}-agent"
        config: dict[str, Any] = {
            "controlPlane": {
                "url": self.agent_url(zone),
                "silence": f"{SILENCE_S:g}s",
            },
            "dataplane": {"name": f"{zone}-client", "readinessPort": self._diagnostics[name]},
            # Nobody listens there: tests ask nothing of the outside world.
            "dns": {"proxyPort": self.dns[zone], "upstreams": [f"{HOST}:9"]},
            "dataDir": str(self.data_dir(name)),
        }
        for section, settings in sections.items():
            config[section] = {**config.get(section, {}), **settings}
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        command = self.agent_command(zone, program("zonedp"), "run", "-c", str(path))
        self.processes[name] = Process(name, command, self.directory / f"{name}.log")

    def agent_url(self, zone: str) -> str:
        """Where a zone's agent reaches its zone."""
        return f"http://{HOST}:{self.ports[zone]}"

    def agent_command(self, zone: str, *command: str) -> list[str]:
        """A command so that it runs where a zone's agent does."""
        return [*command]

    def __getitem__(self, name: str) -> Process:
        return self.processes[name]

    # Starting and ending

    def start(self, *names: str) -> None:
        """Start everything (but agents), or what is named, and wait until it is ready."""
        if not names:
            self.start_redis()
        for name in names or PLANES:
            self[name].start()
        self.wait_ready(*(names or PLANES))

    def start_all(self) -> None:
        """Agents included."""
        self.start()
        self.start(*AGENTS)

    def wait_ready(self, *names: str) -> None:
        for name in names:
            eventually(partial(self.is_ready, name), START_S, self, name)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        self.kill_redis()

    def start_redis(self) -> None:
        """Durable: what it acknowledged is there after `kill_redis`."""
        directory, log = self.directory / "redis", self.directory / "redis.log"
        self._redis = start_redis_server(
            find_redis_server(os.environ), directory=directory, port=self.redis_port, log=log
        )
        wait_ready(
            self._redis,
            directory=directory,
            port=self.redis_port,
            log=log,
            timeout_s=SLOWER * START_S,
        )

    def kill_redis(self) -> None:
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait(timeout=SLOWER * STOP_S)
            self._redis = None

    def empty_redis(self) -> None:
        """Started again without what it held."""
        self.kill_redis()
        shutil.rmtree(self.directory / "redis")
        self.start_redis()

    def forget(self, name: str) -> None:
        """Remove a process's data directory."""
        shutil.rmtree(self.data_dir(name))

    # Asking

    def call(self, name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request to a control plane's REST; (0, None) where nobody answers."""
        return request(self.ports[name], method, path, body)

    def get(self, name: str, path: str) -> Any:
        status, body = self.call(name, "GET", path)
        assert status == 200, (name, path, status, body)
        return body

    def state(self, name: str) -> dict[str, Any]:
        _, body = self.call(name, "GET", "/_state")
        return body or {}

    def ask_diagnostics(self, name: str, path: str) -> tuple[int, Any]:
        return request(self._diagnostics[name], "GET", path)

    def not_ready(self, name: str) -> str | None:
        """Why a process is not ready, in its own words; None if it is."""
        status, body = self.ask_diagnostics(name, "/ready")
        if status == 0:
            return "it does not answer"
        if status == 200:
            return None  # what it serves may be old; that is for whoever asks how old
        return "; ".join(why for why in body["checks"].values() if why != "ok") or None

    def is_ready(self, name: str) -> bool:
        return self.not_ready(name) is None

    def metric(self, name: str, metric: str) -> dict[str, float]:
        """A metric's values by what is between its braces."""
        _, text = self.ask_diagnostics(name, "/metrics")
        found = re.finditer(rf"^{metric}(?:{{(.*)}})? (\S+)$", text or "", re.MULTILINE)
        return {match[1] or "": float(match[2]) for match in found}

    def leader(self) -> str | None:
        return next((name for name in GLOBALS if self.state(name).get("leader")), None)

    def leading(self) -> str:
        """Which global leads: one that was cut short of time may not for a moment."""
        leader = eventually(self.leader, PATIENCE_S, self, *GLOBALS)
        assert leader is not None
        return leader

    def lease(self, log: str, *, db: int = 0) -> str:
        """Who holds a log's lease, and its URL; "" if nobody does."""
        with redis.Redis(HOST, self.redis_port, db=db) as client:
            held = cast("bytes | None", client.get(Keys().of(log).leader))
        return "" if held is None else held.decode()

    def vips(self, name: str) -> dict[str, tuple[str, ...]]:
        """All services' addresses as a control plane holds them, by zone and name."""
        listed = self.get(name, "/meshes/default/meshservices?size=1000")
        return {
            f"{labels['kuma.io/zone']}/{labels['kuma.io/display-name']}": tuple(
                vip["ip"] for vip in item["status"]["vips"]
            )
            for item in listed["items"]
            if (labels := item["labels"])
        }

    def holds(self, name: str, addresses: Mapping[str, str]) -> bool:
        """Whether a control plane has these services of west at these addresses."""
        vips = self.vips(name)
        return all(
            vips.get(f"west/{service}") == (address, ipv6_of(address))
            for service, address in addresses.items()
        )

    def resolve(self, zone: str, name: str, kind: str = "A") -> list[str]:
        """What a zone's agent answers; [] for no such name, no such record, or no answer."""
        response = self.query(zone, name, kind)
        if response is None:
            return []
        return [str(record) for records in response.answer for record in records]

    def query(self, zone: str, name: str, kind: str = "A") -> dns.message.Message | None:
        question = dns.message.make_query(name, kind)
        try:
            return dns.query.udp(question, HOST, port=self.dns[zone], timeout=ANSWER_S)
        except (dns.exception.Timeout, OSError):
            return None

    # Writing

    def put(self, name: str, path: str, document: Any) -> None:
        """Make or change what is there; fails where a control plane does not take it."""
        status, answer = self.call(name, "PUT", path, document)
        assert status in (200, 201), (name, path, status, answer)

    def put_dataplane(self, zone: str, document: Mapping[str, Any]) -> None:
        self.put(zone, f"/meshes/default/dataplanes/{document['name']}", document)

    def register(self, zone: str, service: str, *, address: str = "10.0.0.1") -> None:
        self.put_dataplane(zone, dataplane(service, address))

    def registers(self, zone: str, service: str) -> bool:
        """Whether a zone takes a registration now: for a test that waits until it does."""
        path = f"/meshes/default/dataplanes/{service}-1"
        return self.call(zone, "PUT", path, dataplane(service))[0] in (200, 201)

    def remove(self, zone: str, service: str) -> None:
        status, answer = self.call(zone, "DELETE", f"/meshes/default/dataplanes/{service}-1")
        assert status == 200, (zone, service, status, answer)

    def registered(self, *services: str) -> dict[str, str]:
        """Register in west; every service's address once east's agent answers it."""
        for service in services:
            self.register("west", service)
        return {service: self.resolves("east", elsewhere(service)) for service in services}

    def resolves(self, zone: str, name: str, timeout_s: float = PATIENCE_S) -> str:
        """Wait until a name is answered; its address."""
        return eventually(lambda: self.resolve(zone, name), timeout_s, self, f"{zone}-agent")[0]


def eventually(
    condition: Callable[[], T], timeout_s: float = PATIENCE_S, mesh: Mesh | None = None, *names: str
) -> T:
    """Ask until the answer is true, and give it; fails with the logs of the processes named.

    It waits `SLOWER` times as long as is said. An answer that fails an assertion on its way is not
    true yet.
    """
    limit_s = SLOWER * timeout_s
    deadline_s = time.monotonic() + limit_s
    while True:
        found: object
        try:
            if found := condition():
                return found
        except AssertionError as error:
            found = error
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {limit_s:g} s: {found!r}\n{logs(mesh, names)}")
        time.sleep(POLL_S)


def logs(mesh: Mesh | None, names: Iterable[str]) -> str:
    if mesh is None:
        return ""
    parts = []
    for name in names:
        with suppress(OSError):
            lines = mesh[name].log.read_text(errors="replace").splitlines()[-15:]
            parts.append("\n".join([f"--- {name}", *lines]))
    return "\n".join(parts)


def request(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    text = data.decode()
    as_json = "json" in (response.headers["Content-Type"] or "")
    return response.status, json.loads(text) if as_json and text else text


def dataplane(
    service: str, address: str = "10.0.0.1", *, name: str | None = None
) -> dict[str, Any]:
    return {
        "type": "Dataplane",
        "mesh": "default",
        "name": name or f"{service}-1",
        "networking": {
            "address": address,
            "inbound": [{"port": 8080, "tags": {"kuma.io/service": service}}],
        },
    }


def at_home(service: str) -> str:
    """A service's name within its own zone."""
    return f"{service}.svc.mesh.local"


def elsewhere(service: str, zone: str = "west") -> str:
    """A service's name in other zones."""
    return f"{service}.svc.{zone}.mesh.local"


def ipv6_of(ipv4: str) -> str:
    return str(IPv6Address(int(IPv6Address("fd00:fd00::")) | int(IPv4Address(ipv4))))


def program(script: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / script)


def run(
    script: str, *arguments: str, timeout_s: float = 30, **variables: str
) -> subprocess.CompletedProcess[str]:
    """One of the commands as an operator runs it, to its end."""
    return subprocess.run(
        [program(script), *arguments],
        capture_output=True,
        text=True,
        timeout=SLOWER * timeout_s,
        env=environment() | variables,
        check=False,
    )


def environment() -> dict[str, str]:
    """Without what would configure the processes."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ZONEMESH_", "KUMA_"))
    }
