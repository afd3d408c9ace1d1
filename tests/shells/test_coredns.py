"""A real CoreDNS beside the agent: how it starts, what it answers, and what if it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.agent import Agent, run_cli
from tests.coredns_server import BUILD_S
from tests.docs.documents import ROOT, Block, blocks
from tests.fake_zone import FakeZone, record, revision, snapshot, until
from tests.patience import SLOWER
from tests.ports import free_port
from zonecp.app import check
from zonecp.bootstrap_route import add_bootstrap, read_corefile_template
from zonecp.config import IGNORED, ZoneConfig
from zonecp.dataplane.config import Dns
from zonecp.dataplane.coredns.corefile import Corefile
from zonecp.dataplane.coredns.parts import values
from zonecp.dataplane.coredns.process import BUILT_IN_SOURCE, CoreDns, Options, Source
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.rest.errors import problems
from zonemesh.rest.pages import PAGES
from zonemesh.runtime.config import load
from zonemesh.settings import Settings

# The first of these may have to build CoreDNS.
pytestmark = pytest.mark.timeout(BUILD_S)

LOOPBACK = "127.0.0.1"
NAME = "redis.svc.mesh.local"
REFUSED_TEMPLATE = ".:{{ .CoreDNSPort }} {\n    nonsense\n}\n"
OTHER_TEMPLATE = """\
.:{{ .CoreDNSPort }} {
    bind 127.0.0.1
    hosts {
        10.1.2.3 other.test
    }
}
"""


def ports() -> dict[str, int]:
    names = ("core_dns_port", "agent_port", "envoy_dns_port", "core_dns_empty_port")
    return {name: free_port() for name in names}


def make(program: Path | str, directory: Path, source: Source | None = None, **dns: Any) -> CoreDns:
    config = Dns(**{**ports(), "prometheus_port": 0, **dns})
    options = Options(program=str(program), directory=directory, values=values(config))
    return CoreDns(options, source or BUILT_IN_SOURCE)


def port(coredns: CoreDns) -> int:
    return int(coredns.status()["port"])


@asynccontextmanager
async def running(coredns: CoreDns) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(coredns.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def ask(
    at: int, name: str = NAME, kind: str = "A", *, timeout_s: float = 5.0
) -> list[str] | dns.rcode.Rcode:
    question = dns.message.make_query(name, kind)
    reply = await dns.asyncquery.udp(question, LOOPBACK, port=at, timeout=timeout_s)
    if reply.rcode() != dns.rcode.NOERROR:
        return reply.rcode()
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


def template(text: str, origin: str = "test") -> Source:
    return Source(Corefile.parse(text), origin)


class Behind(Agent):
    """An agent with a CoreDNS before it."""

    def __init__(self, directory: Path, zone_url: str, program: Path, *flags: str) -> None:
        super().__init__(directory, zone_url)
        self.ports = ports()
        self.coredns_port = self.ports["core_dns_port"]
        config = directory / "zonedp.yaml"
        keys = ("coreDnsPort", "agentPort", "envoyDnsPort", "coreDnsEmptyPort")
        chosen = dict(zip(keys, self.ports.values(), strict=True))
        config.write_text(yaml.safe_dump({"dns": {**chosen, "prometheusPort": 0}}))
        self.flags += ["-c", str(config), "--coredns", f"--dns-coredns-path={program}", *flags]


async def test_names_of_the_mesh_are_answered_through_coredns(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    agent = Behind(tmp_path, zone.url, coredns_program)

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        checks = await agent.ready(200)
        found = await ask(agent.coredns_port), await ask(agent.ports["agent_port"])
        nodata = await ask(agent.coredns_port, NAME, "TXT")
        _, metrics = await agent.get("/metrics")
        code, _ = await agent.stop()

    assert checks["coredns"] == "ok"
    assert found == (["241.0.0.1"], ["241.0.0.1"])
    assert nodata == []
    assert "zonedp_coredns_up 1.0" in metrics
    assert code == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((LOOPBACK, agent.coredns_port))  # it has ended with the agent


async def test_coredns_ends_with_an_agent_that_is_killed(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    agent = Behind(tmp_path, zone.url, coredns_program)
    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        await agent.ready(200)
        agent.process.kill()
        await agent.process.wait()

    def is_free() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            try:
                free.bind((LOOPBACK, agent.coredns_port))
            except OSError:
                return False
        return True

    await until(is_free)


async def test_the_zones_template_is_used_and_kept(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    zone.bootstrap = {"corefileTemplate": OTHER_TEMPLATE}
    agent = Behind(tmp_path, zone.url, coredns_program)
    async with agent.running():
        await answered(agent.coredns_port, "other.test", ["10.1.2.3"])
        await agent.stop()

    agent.flags.append("--cp-address=http://127.0.0.1:1")
    async with agent.running():
        await answered(agent.coredns_port, "other.test", ["10.1.2.3"])


async def test_the_data_planes_own_template_wins_over_the_zones(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    zone.bootstrap = {"corefileTemplate": REFUSED_TEMPLATE}
    own = tmp_path / "Corefile.template"
    own.write_text(OTHER_TEMPLATE)
    agent = Behind(tmp_path, zone.url, coredns_program, f"--dns-coredns-config-template-path={own}")

    async with agent.running():
        await answered(agent.coredns_port, "other.test", ["10.1.2.3"])


async def test_a_template_for_envoys_port_meets_the_agent_there(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    zone.bootstrap = {
        "corefileTemplate": ".:{{ .CoreDNSPort }} {\n    bind 127.0.0.1\n"
        "    forward . 127.0.0.1:{{ .EnvoyDNSPort }}\n}\n"
    }
    agent = Behind(tmp_path, zone.url, coredns_program)

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        await answered(agent.coredns_port, NAME, ["241.0.0.1"])


async def answered(at: int, name: str, expected: list[str]) -> None:
    async with asyncio.timeout(SLOWER * 30):
        while True:
            try:
                if await ask(at, name, timeout_s=0.5) == expected:
                    return
            except (OSError, dns.exception.DNSException):
                pass
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("text", ["\n{{ .Nope }}", "\n{{ if eq .CoreDNSPort `a` }}{{ end }}"])
def test_a_bad_template_of_ones_own_is_refused_at_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "Corefile.template"
    path.write_text(text)

    code, output = run_cli("config", "--name=a", f"--dns-coredns-config-template-path={path}")

    assert code == 2
    assert f"error: dns.coreDnsConfigTemplatePath: {path}: line 2: " in output


async def test_one_that_has_ended_is_started_again_by_its_supervisor(
    tmp_path: Path, coredns_program: Path
) -> None:
    coredns = make(coredns_program, tmp_path)

    async with running(coredns) as task:
        await until(lambda: coredns.state.up)
        assert coredns.state.pid is not None
        os.kill(coredns.state.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError, match="CoreDNS ended with -9"):
            await task
    assert coredns.check() is not None
    async with running(coredns):
        await until(lambda: coredns.state.up)

    assert coredns.state.starts == 2


async def test_a_program_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    coredns = make("no-such-coredns", tmp_path, agent_port=15056)

    with pytest.raises(UnavailableError) as caught:
        await coredns.run()

    assert str(caught.value) == (
        "CoreDNS: no-such-coredns is no program on PATH: install CoreDNS, or name it in"
        " dns.coreDnsBinaryPath (--dns-coredns-path);"
        " names are answered on 127.0.0.1:15056 meanwhile"
    )
    assert coredns.check() == str(caught.value)


async def test_a_program_that_is_something_else_is_named_with_the_remedy(tmp_path: Path) -> None:
    coredns = make("/bin/echo", tmp_path)

    with pytest.raises(UnavailableError, match="/bin/echo is not CoreDNS, -version says '-version"):
        await coredns.run()


async def test_a_port_in_use_is_named_with_the_remedy(
    tmp_path: Path, coredns_program: Path
) -> None:
    coredns = make(coredns_program, tmp_path)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, port(coredns)))
        taken.listen()
        with pytest.raises(UnavailableError) as caught:
            await coredns.run()

    assert f"{LOOPBACK}:{port(coredns)}: bind: address already in use" in str(caught.value)
    assert "free it, or set dns.coreDnsPort" in str(caught.value)


async def test_a_template_that_coredns_refuses_leaves_the_last_good_one(
    tmp_path: Path, coredns_program: Path
) -> None:
    coredns = make(coredns_program, tmp_path, template(OTHER_TEMPLATE))

    async with running(coredns):
        await until(lambda: coredns.state.up)
        coredns.want(template(REFUSED_TEMPLATE, "of the zone"), keep=None)
        await until(lambda: coredns.state.refused is not None and coredns.state.up)
        found = await ask(port(coredns), "other.test")

        assert found == ["10.1.2.3"]
        assert coredns.status()["template"] == "the last good one"
        assert coredns.state.refused == (
            f"Corefile template of the zone: line 2: {coredns_program} has no plugin nonsense;"
            " use one that was built with it (coredns -plugins lists what it has)"
        )

        coredns.want(BUILT_IN_SOURCE, keep=None)
        await until(lambda: coredns.state.origin == "built-in")
        assert coredns.state.refused is None


async def test_what_only_coredns_can_refuse_is_quoted(
    tmp_path: Path, coredns_program: Path
) -> None:
    coredns = make(coredns_program, tmp_path, template(".:53 {\n    forward . not-an-address\n}\n"))

    with pytest.raises(UnavailableError) as caught:
        await coredns.run()

    assert "not-an-address" in str(caught.value)


# What the documentation shows


@pytest.mark.parametrize("block", blocks("corefile"), ids=range(len(blocks("corefile"))))
async def test_templates_of_the_documentation_run(
    tmp_path: Path, coredns_program: Path, block: Block
) -> None:
    coredns = make(coredns_program, tmp_path, template(block.text))

    async with running(coredns):
        await until(lambda: coredns.state.up or coredns.state.error is not None)

    assert coredns.state.error is None


async def test_the_template_among_the_sample_configurations_runs(
    tmp_path: Path, coredns_program: Path
) -> None:
    text = (ROOT / "deploy" / "coredns" / "Corefile.template").read_text()
    coredns = make(coredns_program, tmp_path, template(text))

    async with running(coredns):
        await until(lambda: coredns.state.up)


# The zone's side


async def test_a_zone_gives_its_template_to_agents(tmp_path: Path) -> None:
    path = tmp_path / "Corefile.template"
    path.write_text(OTHER_TEMPLATE)
    app = web.Application(middlewares=[problems])
    app[PAGES] = []
    add_bootstrap(
        app,
        corefile_template=read_corefile_template(path),
        settings=Settings,
        mesh_exists={"default"}.__contains__,
    )

    async with TestClient(TestServer(app)) as client:
        found = await client.get("/meshes/default/_bootstrap?dataplane=a")
        absent = await client.get("/meshes/other/_bootstrap")

        assert await found.json() == {
            "corefileTemplate": OTHER_TEMPLATE,
            "vipCidrs": ["240.0.0.0/4", "fd00:fd00::/64"],
        }
        assert absent.status == 404


@pytest.mark.parametrize("key", ["", "params."])
def test_a_zones_bad_template_is_refused_at_start(tmp_path: Path, key: str) -> None:
    path = tmp_path / "Corefile.template"
    path.write_text("\n{{ .Nope }}")
    config, _ = load(
        ZoneConfig,
        {},
        {
            "ZONEMESH_BOOTSTRAP_SERVER_"
            + key.upper().replace(".", "_")
            + "COREFILE_TEMPLATE_PATH": str(path)
        },
    )

    with pytest.raises(ConfigError) as caught:
        check(config)

    (fault,) = caught.value.faults
    assert fault.startswith(f"bootstrapServer.corefileTemplatePath: {path}: line 2: no field .Nope")


def test_kumas_other_keys_of_the_bootstrap_server_are_a_warning_each() -> None:
    document = {"apiVersion": "v3", "params": {"adminPort": 9901, "corefileTemplatePath": ""}}

    config, warnings = load(ZoneConfig, {"bootstrapServer": document}, {}, ignored=IGNORED)

    assert config.bootstrap_server.template is None
    assert len(warnings) == 2


# An existing server


def without_notes(output: str) -> str:
    """The standard output alone, which is what a Corefile gets."""
    return "".join(
        line for line in output.splitlines(keepends=True) if not line.startswith("note:")
    )


async def test_an_existing_coredns_with_the_stub_answers_names_of_the_mesh(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    agent = Agent(tmp_path, zone.url)
    code, block = run_cli("coredns", "stub", f"--dns-port={agent.dns_port}")
    assert code == 0
    existing = make(coredns_program, tmp_path / "existing")
    own = "example.org:{{ .CoreDNSPort }} {\n    whoami\n}\n"
    block = without_notes(block).replace(":53", f":{port(existing)}")
    existing.want(template(own + block), keep=None)

    async with agent.running(), running(existing):
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME)]))
        await answered(port(existing), NAME, ["241.0.0.1"])


async def test_the_hosts_file_follows_the_map(
    zone: FakeZone, tmp_path: Path, coredns_program: Path
) -> None:
    hosts = tmp_path / "shared" / "mesh.hosts"
    agent = Agent(tmp_path, zone.url)
    agent.flags.append(f"--hosts-file={hosts}")
    code, block = run_cli("coredns", "stub", "--hosts", f"--hosts-file={hosts}")
    existing = make(coredns_program, tmp_path / "existing")
    existing.want(template(block.replace(":53", f":{port(existing)}")), keep=None)

    async with agent.running():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(NAME, 1)]))
        await until(hosts.exists)
        first = hosts.read_text()
        async with running(existing):
            await answered(port(existing), NAME, ["241.0.0.1"])
            await stream.send(snapshot(revision(2), [record(NAME, 2)]))
            await answered(port(existing), NAME, ["241.0.0.2"])
        _, metrics = await agent.get("/metrics")

    assert code == 0
    assert first.splitlines() == [
        "# Kept by zonedp: mesh default, zone west. What is changed here is lost.",
        f"241.0.0.1 {NAME}",
        f"fd00:fd00::f100:1 {NAME}",
    ]
    assert hosts.stat().st_mode & 0o777 == 0o644
    assert "zonedp_hosts_file_writes_total 2.0" in metrics


def test_a_stub_for_kube_dns_is_a_config_map() -> None:
    code, output = run_cli("coredns", "stub", "--for=kube-dns", "--agent=10.0.0.5")

    assert code == 0
    assert 'stubDomains: |\n    {"mesh": ["10.0.0.5:15053"], "mesh.local": ["10.0.0.5:15053"]}' in (
        output
    )


@pytest.mark.parametrize(
    "flags,fault",
    [
        (["--agent=nobody"], "--agent: 'nobody' is not an IP address"),
        (["--dns-address=0.0.0.0"], "name the one to be asked (--agent)"),
        (["--hosts"], "--hosts: needs dns.hostsFile"),
        (["--coredns", "--dns-mode=agent"], "--coredns: and --dns-mode agent: give one of them"),
    ],
)
def test_a_stub_of_what_cannot_be_is_refused(flags: list[str], fault: str) -> None:
    code, output = run_cli("coredns", "stub", *flags)

    assert code == 2
    assert fault in output
