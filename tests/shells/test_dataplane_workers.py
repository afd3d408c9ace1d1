"""An agent that answers in several processes, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import pytest
from click.testing import CliRunner

from tests.agent import LOOPBACK, NAME, Agent
from tests.fake_zone import (
    FakeZone,
    delta,
    heartbeat,
    outbound,
    record,
    revision,
    snapshot,
)
from tests.patience import SLOWER
from zonecp.dataplane.cli import cli

pytestmark = pytest.mark.timeout(60)  # processes start slowly on a busy machine

NO_UPSTREAM = "--upstream=127.0.0.1:1"


async def status(agent: Agent) -> dict[str, Any]:
    _, body = await agent.get("/status")
    found: dict[str, Any] = json.loads(body)
    return found


async def serving(agent: Agent, workers: int) -> None:
    async with asyncio.timeout(SLOWER * 30):
        while (await status(agent))["dns"]["workers"] != workers:  # noqa: ASYNC110 -- another process
            await asyncio.sleep(0.02)


async def answers(agent: Agent, name: str, wanted: list[str], qtype: str = "A") -> None:
    """Until all processes answer so: the kernel chooses one by the client's port."""
    async with asyncio.timeout(SLOWER * 30):
        agreeing = 0
        while agreeing < 40:
            query = dns.message.make_query(name, qtype)
            reply = await dns.asyncquery.udp(query, LOOPBACK, port=agent.dns_port, timeout=5)
            found = [rdata.to_text() for rrset in reply.answer for rdata in rrset]
            agreeing = agreeing + 1 if found == wanted else 0
            await asyncio.sleep(0 if agreeing else 0.01)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_workers_answer_what_the_agent_knows_and_count_together(
    zone: FakeZone, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, zone.url, "--workers=3", NO_UPSTREAM)
    os.environ["ZONEMESH_DNS_SRV"] = "true"
    many = [record(f"s{number}.mesh", 9) for number in range(2_000)]

    try:
        async with agent.running():
            stream = await zone.streams.get()
            await stream.send(
                snapshot(revision(1), [record(NAME), *many], [outbound(NAME, section="client")])
            )
            await agent.ready(200)
            await serving(agent, 3)
            await answers(agent, NAME, ["241.0.0.1"])
            await answers(agent, "s1999.mesh", ["241.0.0.9"])
            await answers(agent, f"_client._tcp.{NAME}", [f"0 0 80 {NAME}."], "SRV")
            await stream.send(
                delta(revision(1), revision(2), [record(NAME, 2)], ["s7.mesh"],
                      remove_outbounds=[f"kri_msvc_default_west__{NAME}_"]),
                heartbeat(revision(2)),
            )  # fmt: skip
            await answers(agent, NAME, ["241.0.0.2"])
            await answers(agent, "s7.mesh", [])
            await answers(agent, f"_client._tcp.{NAME}", [], "SRV")
            async with asyncio.timeout(SLOWER * 10):
                while (await status(agent))["dns"]["queries"] < 6 * 40:  # noqa: ASYNC110 -- as above
                    await asyncio.sleep(0.05)
            workers = children(agent.process.pid)
            code, stderr = await agent.stop()
    finally:
        del os.environ["ZONEMESH_DNS_SRV"]

    assert len(workers) == 2
    assert code == 0
    assert not any(map(_alive, workers))
    assert "Traceback" not in stderr


async def test_a_worker_that_dies_is_replaced_and_knows_everything(
    zone: FakeZone, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, zone.url, "--workers=2", NO_UPSTREAM)

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        await agent.ready(200)
        await serving(agent, 2)
        (first,) = children(agent.process.pid)
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(SLOWER * 30):
            while children(agent.process.pid) in ([], [first]):  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.02)
        await serving(agent, 2)
        await answers(agent, NAME, ["241.0.0.1"])
        _, metrics = await agent.get("/metrics")

    assert "zonedp_dns_worker_restarts_total 1.0" in metrics


async def test_workers_end_with_an_agent_that_is_killed(zone: FakeZone, tmp_path: Path) -> None:
    agent = Agent(tmp_path, zone.url, "--workers=2", NO_UPSTREAM)

    async with agent.running():
        await agent.ready(503)
        await serving(agent, 2)
        (worker,) = children(agent.process.pid)
        agent.process.kill()
        await agent.process.wait()
        async with asyncio.timeout(SLOWER * 20):
            while _alive(worker):  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_two_agents_never_share_a_port(zone: FakeZone, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    first = Agent(tmp_path, zone.url, "--workers=2", NO_UPSTREAM)
    second = Agent(tmp_path / "second", zone.url, "--workers=2", f"--dns-port={first.dns_port}")

    async with first.running():
        await first.ready(503)
        async with second.running():
            _, stderr = await second.process.communicate()

    assert second.process.returncode == 2
    assert f"port {first.dns_port}: in use" in stderr.decode()


async def asked(agent: Agent, *words: str) -> tuple[int, str]:
    result = await asyncio.to_thread(
        CliRunner().invoke, cli, [*words, "--agent", agent.diagnostics]
    )
    return result.exit_code, result.output


async def test_an_operator_asks_what_is_served_and_why(zone: FakeZone, tmp_path: Path) -> None:
    agent = Agent(tmp_path, zone.url, NO_UPSTREAM)

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]), heartbeat(revision(1), 0.5))
        await agent.ready(200)
        known = await asked(agent, "lookup", NAME, "--json")
        reverse = await asked(agent, "lookup", "241.0.0.1")
        absent = await asked(agent, "lookup", f"x.{NAME}")
        outside = await asked(agent, "lookup", "example.org", "--type", "AAAA")
        wrong = await asked(agent, "lookup", "a..b")
        shown = await asked(agent, "status")

    document = json.loads(known[1])
    assert document["answers"] == [f"{NAME}. 60 A 241.0.0.1"]
    assert document["source"] == "map"
    assert document["service"] == f"kri_msvc_default_west__{NAME}_"
    assert document["zone"] == "west"
    assert document["map"]["revision"] == revision(1)
    assert f"PTR {NAME}." in reverse[1]
    assert f"x.{NAME} A: NXDOMAIN" in absent[1]
    assert "example.org AAAA: SERVFAIL" in outside[1]
    assert "no upstream answered" in outside[1]
    assert wrong[0] == 1
    assert "error: Not possible ('a..b' is not a name" in wrong[1]
    assert shown[0] == 0
    assert "revision" in shown[1]
    assert "127.0.0.1:1" in shown[1]


async def test_nobody_there_is_said() -> None:
    result = CliRunner().invoke(cli, ["status", "--agent", "http://127.0.0.1:1"])

    assert result.exit_code == 1
    assert "http://127.0.0.1:1 does not answer" in result.output


async def test_queries_are_logged_while_somebody_wants_it(zone: FakeZone, tmp_path: Path) -> None:
    agent = Agent(tmp_path, zone.url, NO_UPSTREAM)

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME), record("silent.mesh")]))
        await agent.ready(200)
        await agent.ask("silent.mesh")
        on = await asked(agent, "querylog", "on", "--seconds", "60")
        await agent.ask(NAME)
        off = await asked(agent, "querylog", "off")
        await agent.ask("silent.mesh")
        agent.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(SLOWER * 10):
            while '"on": true' not in (await agent.get("/querylog"))[1]:  # noqa: ASYNC110 -- a process
                await asyncio.sleep(0.02)
        wrong = await asked(agent, "querylog", "on", "--seconds", "0")
        _, stderr = await agent.stop()

    assert "on      yes" in on[1]
    assert "on  no" in off[1]
    assert "seconds: '0' is no whole number from 1" in wrong[1]
    logged = [json.loads(line) for line in stderr.splitlines() if "dns_query" in line]
    assert [(each["name"], each["type"], each["result"]) for each in logged] == [
        (NAME, "A", "NOERROR")
    ]


async def test_dns_can_be_off(zone: FakeZone, tmp_path: Path) -> None:
    agent = Agent(tmp_path, zone.url, "--dns-enabled=false")

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        checks = await agent.ready(200)
        found = await status(agent)
        lookup = await asked(agent, "lookup", NAME)
        with pytest.raises((TimeoutError, OSError, dns.exception.Timeout)):
            await dns.asyncquery.tcp(
                dns.message.make_query(NAME, "A"), LOOPBACK, port=agent.dns_port, timeout=1
            )

    assert checks == {"map": "ok", "fresh": "ok"}
    assert found["dns"] == {"enabled": False}
    assert found["map"]["names"] == 1
    assert "DNS is off" in lookup[1]


async def test_what_is_no_name_is_refused(zone: FakeZone, tmp_path: Path) -> None:
    agent = Agent(tmp_path, zone.url, NO_UPSTREAM)

    async with agent.running():
        await agent.ready(503)
        found = await status(agent)
        code, _ = await agent.get("/lookup?name=")

    assert (found["map"]["revision"], found["map"]["loaded"]) == (None, False)
    assert code == 400
