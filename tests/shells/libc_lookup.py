"""Run by test_libc in a user, network and mount namespace of its own: an agent's DNS on port 53,
and what this system's C library makes of it.

Prints JSON: what getaddrinfo gave for each name and family, and the questions that came.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

from zonecp.dataplane.dns import Server
from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.message import TYPE_NAMES, parse, text_name, wire_name
from zonecp.dataplane.resolver import Answer, Table
from zonecp.dataplane.upstreams import Servers

V4 = bytes((241, 0, 0, 1))
V6 = bytes.fromhex("fd00fd000000000000000000") + V4
LOOKUP = """
import json, socket, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = sorted({each[4][0] for each in socket.getaddrinfo(name, 80)})
    except socket.gaierror as error:
        found[name] = error.errno
print(json.dumps(found))
"""


def mount(directory: Path, target: str, text: str) -> None:
    source = directory / Path(target).name
    source.write_text(text)
    subprocess.run(["mount", "--bind", str(source), target], check=True)


async def serve(names: list[str]) -> dict[str, object]:
    table = Table(["mesh.local"])
    table.put(wire_name("both.svc.mesh.local"), wire_entry([V4, V6], 60))
    table.put(wire_name("four.svc.mesh.local"), wire_entry([V4], 60))
    table.put(wire_name("six.svc.mesh.local"), wire_entry([V6], 60))
    table.loaded = table.complete = True
    asked: list[tuple[str, str]] = []

    def answer(packet: bytes, size_max: int) -> Answer:
        query = parse(packet)
        asked.append((text_name(query.key), TYPE_NAMES.get(query.qtype, "?")))
        return table.answer(packet, size_max)

    forwarder = Forwarder(Servers((), resolv_conf=Path("/nonexistent"), own=lambda _: True))
    server = Server(table, forwarder, addresses=("127.0.0.1",), port=53)
    server.answer_by(answer)
    server.bind()
    serving = asyncio.ensure_future(server.run())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOOKUP, *names, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    serving.cancel()
    await asyncio.wait({serving})
    return {"found": json.loads(output), "asked": asked}


def main() -> None:
    directory, *names = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    mount(Path(directory), "/etc/resolv.conf", "nameserver 127.0.0.1\nsearch svc.mesh.local\n")
    mount(Path(directory), "/etc/nsswitch.conf", "hosts: files dns\n")
    print(json.dumps(asyncio.run(serve(names))))


if __name__ == "__main__":
    assert socket.has_ipv6
    main()
