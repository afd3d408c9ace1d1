"""What C libraries and the usual tools make of the agent's answers."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest

from tests.patience import SLOWER
from tests.serving import serving
from tests.upstreams import LOOPBACK, NAME
from zonecp.dataplane.dns import Server

SCRIPT = Path(__file__).with_name("libc_lookup.py")


def _why_not() -> str:
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return "needs glibc on Linux"
    missing = [tool for tool in ("unshare", "mount", "ip") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    probe = subprocess.run(
        ["unshare", "-Urmn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    )
    return "" if probe.returncode == 0 else "needs user namespaces"


WHY_NOT = _why_not()


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_glibc_finds_every_name_by_full_and_by_short_name(tmp_path: Path) -> None:
    names = ["both.svc.mesh.local", "four.svc.mesh.local", "six.svc.mesh.local", "both",
             "none.svc.mesh.local", "outside.example"]  # fmt: skip
    command = ["unshare", "-Urmn", sys.executable, str(SCRIPT), str(tmp_path), *names]

    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SLOWER * 25)

    assert run.returncode == 0, run.stderr
    outcome: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    v4, v6 = "241.0.0.1", "fd00:fd00::f100:1"
    assert outcome["found"] == {
        "both.svc.mesh.local": [v4, v6],
        "four.svc.mesh.local": [v4],
        "six.svc.mesh.local": [v6],
        "both": [v4, v6],
        "none.svc.mesh.local": socket.EAI_NONAME,
        "outside.example": socket.EAI_AGAIN,  # REFUSED: there is no upstream
    }
    types = [qtype for name, qtype in outcome["asked"] if name == "both.svc.mesh.local"]
    assert types[:2] == ["A", "AAAA"]


async def _exchange(server: Server, *packets: bytes) -> list[dns.message.Message]:
    """All at once from one socket; replies in the order of the IDs."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((LOOPBACK, server.port))
        for packet in packets:
            client.send(packet)
        async with asyncio.timeout(SLOWER * 5):
            replies = [await loop.sock_recv(client, 4096) for _ in packets]
    return sorted((dns.message.from_wire(reply) for reply in replies), key=lambda each: each.id)


@pytest.mark.parametrize("order", [("A", "AAAA"), ("AAAA", "A")])
async def test_musl_asks_both_at_once_and_one_without_addresses_does_not_end_the_search(
    order: tuple[str, str],
) -> None:
    """To musl NXDOMAIN for either family is the end of the name, whatever the other says."""
    async with serving() as server:
        for name in ("four.mesh.local", NAME):
            packets = [
                dns.message.make_query(name, qtype, id=number).to_wire()
                for number, qtype in enumerate(order)
            ]
            replies = await _exchange(server, *packets)

            assert [reply.rcode() for reply in replies] == [dns.rcode.NOERROR] * 2
            assert any(reply.answer for reply in replies)


@pytest.mark.parametrize("tool", ["dig", "kdig"])
@pytest.mark.parametrize(
    "words,found",
    [
        ([NAME, "A"], "241.0.0.1"),
        (["+tcp", NAME, "AAAA"], "::1"),
        (["+noedns", NAME.upper(), "A"], "241.0.0.1"),
        (["-x", "241.0.0.1"], f"{NAME}."),
        (["+bufsize=512", "many.mesh.local", "A"], "241.0.1.199"),  # by TCP, after TC
    ],
)
async def test_the_usual_tools_take_the_answers(tool: str, words: list[str], found: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on PATH")
    async with serving() as server:
        process = await asyncio.create_subprocess_exec(
            tool, f"@{LOOPBACK}", "-p", str(server.port), "+short", *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()

    assert found in output.decode().split()
