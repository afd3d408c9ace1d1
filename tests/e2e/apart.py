"""A mesh whose zones have networks of their own: what a program beside east's agent experiences.

    hub, the control planes and Redis ── 10.78.2.0/24 ── east, an agent, its Envoy, programs
    west, workloads ──────────────────── 10.78.3.0/24 ──┘

Who runs a test is in none of these. The agent is root's, programs are not.
"""

from __future__ import annotations

import json
import shutil
import socketserver
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message

from tests import netns
from tests.e2e.envoys import AGENT, Backend, EnvoyMesh, Threaded, has_envoy
from tests.e2e.mesh import program
from tests.netns import Namespace, join, namespace

HUB, EAST, WEST = "10.78.2.1", "10.78.3.2", "10.78.3.1"
PROGRAM_USER = "65534"
ARRANGEMENTS = {"nat": "redirect", "anyip": "bound"}
DNS_PORTS = {"nat": 15053, "anyip": 53}


def why_not() -> str | None:
    """What this machine lacks; None if nothing."""
    if (why := netns.why_not()) is not None:
        return why
    if not has_envoy():
        return "no Envoy for this platform"
    if not any(shutil.which(tool, path=netns.PATH) for tool in ("nft", "iptables")):
        return "a redirect needs nftables or iptables (.ci/apt-install nft:nftables)"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    hub: Namespace
    west: Namespace
    east: Namespace


@contextmanager
def networks(mode: str) -> Iterator[Networks]:
    with ExitStack() as stack:
        found = Networks(
            hub=stack.enter_context(namespace()),
            west=stack.enter_context(namespace()),
            # With anyip a program asks the agent itself.
            east=stack.enter_context(namespace("127.0.0.1") if mode == "anyip" else namespace()),
        )
        join(found.hub, found.east, "10.78.2")
        join(found.west, found.east, "10.78.3")
        yield found


class ApartMesh(EnvoyMesh):
    """To be made, started and asked within the hub."""

    def __init__(self, directory: Path, networks: Networks, mode: str) -> None:
        self.networks = networks
        self.mode = mode
        super().__init__(
            directory,
            envoy={"arrangement": ARRANGEMENTS[mode]},
            dns={"proxyPort": DNS_PORTS[mode]},
            loopback=False,
        )
        self.dns["east"] = DNS_PORTS[mode]

    def config(self, name: str) -> dict[str, Any]:
        found = super().config(name)
        found["apiServer"]["http"]["address"] = "0.0.0.0"
        return found

    def agent_url(self, zone: str) -> str:
        return f"http://{HUB}:{self.ports[zone]}"

    def agent_command(self, zone: str, *command: str) -> list[str]:
        return self.networks.east.command(*command) if zone == "east" else [*command]

    def ask_diagnostics(self, name: str, path: str) -> tuple[int, Any]:
        if name != AGENT:
            return super().ask_diagnostics(name, path)
        with self.networks.east.entered():
            return super().ask_diagnostics(name, path)

    def query(self, zone: str, name: str, kind: str = "A") -> dns.message.Message | None:
        with self.networks.east.entered():
            return super().query(zone, name, kind)

    def redirect(self) -> None:
        """What an operator does once."""
        config = str(self.directory / f"{AGENT}.yaml")
        arguments = ("install", "--mode", self.mode, "--user", "0", "-c", config)
        done = self.networks.east.run(program("zonedp"), "redirect", *arguments, check=False)
        assert done.returncode == 0, done.stderr
        assert "no zone says" not in done.stderr

    # What runs in the zones

    def backend(self, zone: str, port: int, name: str) -> Backend:
        """An HTTP server."""
        with getattr(self.networks, zone).entered():
            return Backend(name, port, address="0.0.0.0")

    def echo(self, zone: str, port: int, name: str) -> Echo:
        with getattr(self.networks, zone).entered():
            return Echo(name, port)

    def program(self, name: str, port: int, *, how: str = "http", family: int = 0) -> Found:
        """What a program in east gets that knows only the name (or an address) and the port."""
        text = self.networks.east.python(PROGRAM, PROGRAM_USER, how, str(family), name, str(port))
        return Found(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    answer: str
    """The server's, or the name of an error."""

    addresses: list[str]


PROGRAM = """
import encodings.idna, http.client, json, os, socket, sys
user, how, family, name, port = sys.argv[1:]
os.setgid(int(user))
os.setuid(int(user))
family = {"0": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}[family]
answer, addresses = "", []
try:
    found = socket.getaddrinfo(name, int(port), family, socket.SOCK_STREAM)
    addresses = [each[4][0] for each in found]
    if how == "http" and not family:
        connection = http.client.HTTPConnection(name, int(port), timeout=20)
        connection.request("GET", "/")
        response = connection.getresponse()
        answer = response.read().decode()
        answer = answer if response.status == 200 else f"status {response.status}"
    elif how != "resolve":
        with socket.create_connection((addresses[0], int(port)), timeout=20) as connection:
            hello = f"GET / HTTP/1.0\\r\\nHost: {name}\\r\\n\\r\\n" if how == "http" else "hello\\n"
            connection.sendall(hello.encode())
            read = connection.makefile("rb")
            answer = (read.read() if how == "http" else read.readline()).decode()
            answer = answer.rpartition("\\r\\n\\r\\n")[2].strip() or "closed"
except OSError as error:
    answer = type(error).__name__
except http.client.HTTPException as error:
    answer = type(error).__name__
print(json.dumps({"answer": answer, "addresses": addresses}))
"""


class Echo(Threaded):
    """Sends each line back after its name, over TCP."""

    def __init__(self, name: str, port: int) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    self.wfile.write(f"{name}: ".encode() + line)

        super().__init__(socketserver.ThreadingTCPServer(("", port), Handler))


@contextmanager
def apart(directory: Path, mode: str) -> Iterator[ApartMesh]:
    """One that runs, with the redirect installed; this thread is in the hub meanwhile."""
    with networks(mode) as found, found.hub.entered():
        mesh = ApartMesh(directory, found, mode)
        try:
            mesh.start()
            mesh.redirect()
            mesh.start(AGENT)
            yield mesh
        finally:
            mesh.close()
