"""The agent as it is run: a process, a zone, DNS clients, and a disk."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
import yaml

from tests.agent import NAME, Agent, run_cli
from tests.fake_zone import (
    FakeZone,
    delta,
    fake_zone,
    heartbeat,
    record,
    revision,
    snapshot,
    until,
)
from tests.patience import SLOWER
from tests.ports import free_port
from zonecp.dataplane.cache import FILE_NAME

pytestmark = pytest.mark.timeout(60)  # processes start slowly on a busy machine


async def test_an_agent_registers_follows_answers_and_leaves(
    zone: FakeZone, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, zone.url)

    async with agent.running():
        before = await agent.ready(503)
        early = await agent.ask()
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME, 1)]))
        after = await agent.ready(200)
        first = await agent.ask()
        await stream.send(
            delta(revision(1), revision(2), [record(NAME, 2)]), heartbeat(revision(2))
        )
        async with asyncio.timeout(SLOWER * 20):
            while await agent.ask() != ["241.0.0.2"]:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.01)
        _, metrics = await agent.get("/metrics")
        code, _ = await agent.stop()

    assert before["map"] == "no map yet, neither from the zone nor from disk"
    assert "has not told since the start" in before["fresh"]
    assert after == {"map": "ok", "dns": "ok", "fresh": "ok"}
    assert (early, first, code) == (dns.rcode.SERVFAIL, ["241.0.0.1"], 0)
    assert 'zonedp_dns_queries_total{result="answered",type="A"}' in metrics
    assert 'zonedp_dns_queries_total{result="servfail",type="A"} 1.0' in metrics
    assert "zonedp_dns_names 1.0" in metrics
    assert "zonedp_map_age_seconds" in metrics
    assert zone.requests.get_nowait()[:2] == ("PUT", "redis-01")
    assert zone.requests.get_nowait()[:2] == ("DELETE", "redis-01")


async def test_a_restarted_agent_serves_without_a_zone_and_resumes(tmp_path: Path) -> None:
    async with fake_zone() as zone:
        agent = Agent(tmp_path, zone.url)
        async with agent.running():
            stream = await zone.streams.get()
            await stream.send(snapshot(revision(7), [record(NAME)]))
            await agent.ready(200)
            await agent.stop(signal.SIGINT)
    async with agent.running():
        await agent.ready(200)
        alone = await agent.ask()
    async with fake_zone() as zone:
        back = Agent(tmp_path, zone.url)
        async with back.running():
            resumed = await zone.streams.get()

    assert alone == ["241.0.0.1"]
    assert resumed.last_event_id == revision(7)


async def test_an_agent_killed_and_its_cache_damaged_starts_without_a_map(
    zone: FakeZone, tmp_path: Path
) -> None:
    path = tmp_path / "data" / FILE_NAME
    agent = Agent(tmp_path, zone.url)
    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        await until(path.exists)
    path.write_bytes(path.read_bytes()[:-1])

    async with agent.running():
        checks = await agent.ready(503)
        answer = await agent.ask()

    assert checks["dns"] == "ok"
    assert answer == dns.rcode.SERVFAIL
    assert path.with_suffix(".corrupt").exists()


async def test_the_token_goes_with_every_request(zone: FakeZone, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    agent = Agent(tmp_path, zone.url)
    config = tmp_path / "zonedp.yaml"  # CoreDNS's template is asked for, whether or not it runs
    config.write_text(f"dns: {{coreDnsPort: {free_port()}, agentPort: {free_port()}}}")
    agent.flags += [f"--dataplane-token-file={token}", "--coredns", f"--config={config}"]

    async with agent.running():
        await until(lambda: len(zone.authorizations) == 3)

    assert set(zone.authorizations.values()) == {"Bearer secret"}


async def test_a_refused_dataplane_ends_the_agent_with_2(zone: FakeZone, tmp_path: Path) -> None:
    zone.put_refusals = [(400, {"title": "Could not process a resource", "detail": "no"})]
    agent = Agent(tmp_path, zone.url)

    async with agent.running():
        _, stderr = await agent.process.communicate()

    assert agent.process.returncode == 2
    assert f"error: {zone.url} refused the Dataplane: status 400" in stderr.decode()


async def test_a_dns_port_that_is_taken_ends_the_agent_with_2(
    zone: FakeZone, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    first, second = Agent(tmp_path, zone.url), Agent(tmp_path / "second", zone.url)
    second.flags.append(f"--dns-port={first.dns_port}")

    async with first.running():
        await first.ready(503)
        async with second.running():
            _, stderr = await second.process.communicate()

    assert second.process.returncode == 2
    assert f"error: DNS on 127.0.0.1 port {first.dns_port}: in use" in stderr.decode()


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "zonedp.yaml"
    path.write_text("dataplane: {name: file, mesh: file}\ndns: {proxyPort: 1, negativeTtl: 5s}\n")

    code, output = run_cli(
        "config", "--config", str(path), "--name", "flag", "--dns-address", "127.0.0.1,::1",
        ZONEMESH_DATAPLANE_NAME="variable", KUMA_DNS_PROXY_PORT="53",
    )  # fmt: skip
    shown = yaml.safe_load(output)

    assert code == 0
    assert shown["dataplane"]["name"] == "flag"
    assert shown["dataplane"]["mesh"] == "file"
    assert shown["dns"]["proxyPort"] == 53
    assert shown["dns"]["negativeTtl"] == "5s"
    assert shown["dns"]["addresses"] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    "arguments,fault",
    [
        ([], "dataplane.name: must be given (--name), or a Dataplane (--dataplane-file)"),
        (["--cp-address", "ftp://x"], "'ftp://x' is not http://host:port"),
        (["--dns-address", "localhost"], "dns.addresses: '[localhost]' is not an IP address"),
        (["--dns-port", "x"], "ZONEMESH_DNS_PROXY_PORT"),
    ],
)
def test_a_faulty_configuration_exits_2(arguments: list[str], fault: str) -> None:
    code, output = run_cli("config", *arguments)

    assert code == 2
    assert fault in output


def test_every_fault_of_a_section_is_named() -> None:
    code, output = run_cli(
        "config", "--name", "x", ZONEMESH_DNS_UPSTREAMS="a,1.1.1.1:x", ZONEMESH_DNS_DOMAINS="a..b"
    )

    assert code == 2
    assert output.count("error: dns.") == 3


def test_the_version_is_printed() -> None:
    assert run_cli("version")[1].startswith("zonedp ")


def test_names_from_disk_wait_for_no_http_library() -> None:
    """They take longer to import than an agent may need until it answers."""
    code = (
        "import sys; import zonecp.dataplane.cli, zonecp.dataplane.early;"
        "print({'aiohttp', 'prometheus_client', 'grpclib'} & sys.modules.keys() or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "none\n"
