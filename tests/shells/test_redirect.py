"""The redirect in a real kernel: in network namespaces, by its own tools, seen by sockets."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.e2e.mesh import eventually
from tests.netns import PATH, Namespace, namespace
from zonecp.dataplane.cli import cli

pytestmark = pytest.mark.timeout(120)

APPLICATION, AGENT = "65534", "5678"
VIP4, VIP6 = "241.0.0.1", "fd00:fd00::f100:1"
OUTSIDE = "9.9.9.9"
CIDRS = ("--vip-cidr=240.0.0.0/4", "--vip-cidr=fd00:fd00::/64")
TOOLS = ("nft", "iptables-nft", "iptables-legacy")

SERVERS = """
import socket, sys, threading
def tcp(family, address, port, name):
    with socket.create_server((address, port), family=family) as server:
        ready.release()
        while True:
            client, _ = server.accept()
            client.sendall(name)
            client.close()
def udp(family, address, port, name):
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        ready.release()
        while True:
            _, client = server.recvfrom(99)
            server.sendto(name, client)
ready = threading.Semaphore(0)
V4, V6 = socket.AF_INET, socket.AF_INET6
wanted = [
    (tcp, V4, "127.0.0.1", 15001, b"envoy"), (tcp, V6, "::1", 15001, b"envoy"),
    (tcp, V4, "127.0.0.1", 15053, b"dns"), (udp, V4, "127.0.0.1", 15053, b"dns"),
    (tcp, V6, "::1", 15053, b"dns"), (udp, V6, "::1", 15053, b"dns"),
    (udp, V4, "127.0.0.11", 53, b"resolver"),
    (tcp, V4, "0.0.0.0", 18080, b"bound"), (tcp, V6, "::", 18081, b"bound"),
]
for function, *arguments in wanted:
    threading.Thread(target=function, args=arguments, daemon=True).start()
for _ in wanted:
    ready.acquire()
print("ready", flush=True)
threading.Event().wait()
"""
"""Stand-ins for Envoy, the agent and a local resolver; each says who it is."""

CLIENT = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
kind = socket.SOCK_DGRAM if sys.argv[4:] == ["udp"] else socket.SOCK_STREAM
with socket.socket(family, kind) as client:
    client.settimeout(1)
    try:
        client.connect((sys.argv[2], int(sys.argv[3])))
        client.send(b"x")
        print(client.recv(99).decode(), end="")
    except OSError as error:
        print(type(error).__name__, end="")
"""


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Namespace]:
    with namespace() as found:
        log = tmp_path / "servers.log"
        found.start(sys.executable, "-c", SERVERS, log=log)
        eventually(lambda: "ready" in log.read_text())
        yield found


def redirect(net: Namespace, *arguments: str) -> tuple[int, str]:
    done = net.run(sys.executable, "-m", "zonecp.dataplane", "redirect", *arguments, check=False)
    return done.returncode, done.stdout + done.stderr


def install(net: Namespace, *arguments: str) -> None:
    code, output = redirect(
        net, "install", f"--user={AGENT}", *CIDRS, "--dns-address=127.0.0.1,::1", *arguments
    )
    assert code == 0, output


def reached(net: Namespace, address: str, port: int, *kind: str, user: str = APPLICATION) -> str:
    return net.python(CLIENT, user, address, str(port), *kind)


def needs(tool: str) -> None:
    if shutil.which(tool, path=PATH) is None:
        pytest.skip(f"{tool} is not installed")


def everything(net: Namespace) -> str:
    """Rules and routes of the namespace, without counters."""
    listed = [
        net.run("nft", "--stateless", "list", "ruleset", check=False).stdout,
        *[
            net.run(f"ip{v}tables-legacy-save", check=False).stdout.partition("*nat")[2]
            for v in ("", "6")
        ],
        *[net.run("ip", f"-{v}", "route", "show", "table", "all").stdout for v in (4, 6)],
    ]
    return "\n".join(
        line for text in listed for line in text.splitlines() if not line.startswith("#")
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_dns_and_vips_reach_the_agent_and_envoy(net: Namespace, tool: str) -> None:
    needs(tool)
    install(net, f"--tool={tool}")

    assert reached(net, VIP4, 80) == "envoy"
    assert reached(net, VIP6, 80) == "envoy"
    assert reached(net, OUTSIDE, 53, "udp") == "dns"
    assert reached(net, OUTSIDE, 53) == "dns"
    assert reached(net, "127.0.0.11", 53, "udp") == "dns"
    assert reached(net, "::1", 53, "udp") == "dns"
    # other ports, and the agent's own questions, go where they went
    assert reached(net, "127.0.0.1", 18080) == "bound"
    assert reached(net, "127.0.0.11", 53, "udp", user=AGENT) == "resolver"
    assert reached(net, VIP4, 80, user=AGENT) != "envoy"


@pytest.mark.parametrize("tool", TOOLS)
def test_the_redirect_comes_before_dockers_own(net: Namespace, tool: str) -> None:
    dockers = "iptables-nft" if tool == "nft" else tool
    needs(tool)
    needs(dockers)
    rule = "-t nat -A OUTPUT -d 127.0.0.11 -p udp --dport 53 -j REDIRECT --to-ports 15999"
    net.run(dockers, *rule.split())

    install(net, f"--tool={tool}")

    assert reached(net, "127.0.0.11", 53, "udp") == "dns"
    assert reached(net, "127.0.0.11", 53, "udp", user=AGENT) == "ConnectionRefusedError"


def test_vips_are_reached_without_a_default_route(net: Namespace) -> None:
    net.run("ip", "route", "del", "default")
    net.run("ip", "addr", "del", "10.77.0.1/24", "dev", "lo")

    install(net)

    assert reached(net, VIP4, 80) == "envoy"
    assert reached(net, VIP6, 80) == "envoy"


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_removed_is_all_that_was_installed_and_nothing_else(
    net: Namespace, tool: str
) -> None:
    needs(tool)
    for command in (
        f"{'iptables' if tool == 'nft' else tool} -t nat -A OUTPUT -d 10.9.9.9 -j RETURN",
        f"{'ip6tables' if tool == 'nft' else tool.replace('ip', 'ip6')} -t nat -P OUTPUT ACCEPT",
        "nft add table ip others",
        "ip route add 244.0.0.0/8 dev lo src 127.0.0.1",
    ):
        net.run(*command.split())
    before = everything(net)

    install(net, f"--tool={tool}")
    installed = everything(net)
    install(net, f"--tool={tool}")

    assert everything(net) == installed != before
    code, output = redirect(net, "remove", f"--tool={tool}")
    assert (code, output) == (0, "")
    assert everything(net) == before
    assert redirect(net, "remove", f"--tool={tool}")[0] == 0


@pytest.mark.parametrize("broken_off", ["routes", "chain", "one family"])
def test_an_install_that_was_broken_off_is_seen_and_can_be_repeated(
    net: Namespace, broken_off: str
) -> None:
    needs("iptables-nft")
    install(net, "--tool=iptables-nft")
    match broken_off:
        case "routes":
            net.run("ip", "-6", "route", "del", "fd00:fd00::/64")
            net.run("iptables-nft", "-t", "nat", "-D", "OUTPUT", "-j", "ZONEDP_OUTPUT")
        case "chain":
            net.run("iptables-nft", "-t", "nat", "-D", "OUTPUT", "-j", "ZONEDP_OUTPUT")
        case _:
            net.run("ip6tables-nft", "-t", "nat", "-D", "OUTPUT", "-j", "ZONEDP_OUTPUT")
            net.run("ip6tables-nft", "-t", "nat", "-F", "ZONEDP_OUTPUT")
            net.run("ip6tables-nft", "-t", "nat", "-X", "ZONEDP_OUTPUT")

    code, output = redirect(net, "status", "--tool=iptables-nft")
    install(net, "--tool=iptables-nft")

    assert (code, output.splitlines()[0].split()[1]) == (1, "incomplete")
    assert redirect(net, "status", "--tool=iptables-nft")[0] == 0
    assert reached(net, VIP4, 80) == reached(net, VIP6, 80) == "envoy"


def test_another_tool_and_another_mode_take_over(net: Namespace) -> None:
    needs("nft")
    needs("iptables")
    install(net, "--tool=iptables")
    install(net, "--tool=nft")
    code, output = redirect(net, "status", "--json")
    found = json.loads(output)

    assert (code, found["state"], found["tools"]) == (0, "nat", ["nft"])
    assert "240.0.0.0/4 dev lo src 127.0.0.1 proto 153" in found["routes"]

    install(net, "--mode=anyip")
    found = json.loads(redirect(net, "status", "--json")[1])
    assert (found["state"], found["tools"]) == ("anyip", [])


def test_with_anyip_listeners_on_vips_are_reached_and_others_refuse(net: Namespace) -> None:
    install(net, "--mode=anyip")

    assert reached(net, VIP4, 18080) == "bound"
    assert reached(net, VIP6, 18081) == "bound"
    assert reached(net, VIP4, 80) == "ConnectionRefusedError"
    assert redirect(net, "remove") == (0, "")
    assert redirect(net, "status") == (1, "state: absent\n")


def test_a_dry_run_changes_nothing(net: Namespace) -> None:
    needs("nft")
    before = everything(net)

    code, output = redirect(net, "install", "--user=5678", *CIDRS, "--tool=nft", "--dry-run")

    assert code == 0
    assert "ip -4 route add 240.0.0.0/4 dev lo src 127.0.0.1 proto 153" in output
    assert "udp dport 53 counter redirect to :15053" in output
    assert everything(net) == before


def test_a_name_of_the_mesh_leads_an_application_to_envoy(net: Namespace, tmp_path: Path) -> None:
    """A zone, an agent and the system's resolver, with a server of nowhere in resolv.conf."""
    zone = {
        "ZONEMESH_DATA_DIR": str(tmp_path / "zone"),
        "ZONEMESH_MULTIZONE_ZONE_NAME": "west",
    }
    words = [f"{name}={value}" for name, value in zone.items()]
    net.start("env", *words, sys.executable, "-m", "zonecp", "run", log=tmp_path / "zone.log")
    net.start(
        sys.executable, "-m", "zonecp.dataplane", "run", "--name=web-1", "--dns-port=25053",
        f"--data-dir={tmp_path / 'agent'}", log=tmp_path / "agent.log",
    )  # fmt: skip
    install = ("install", "--user=0", "--dns-port=25053")
    eventually(lambda: "no zone says" not in redirect(net, *install)[1], 20)
    eventually(lambda: net.python(REGISTER) == "201", 20)

    found = eventually(
        lambda: said if "envoy" in (said := net.python(BY_NAME, APPLICATION)) else "", 20
    )
    assert found.startswith(("241.", "fd00:fd00::"))


REGISTER = """
import http.client, json
body = {
    "type": "Dataplane", "mesh": "default", "name": "redis-1",
    "networking": {"address": "10.0.0.1",
                   "inbound": [{"port": 6379, "tags": {"kuma.io/service": "redis"}}]},
}
try:
    connection = http.client.HTTPConnection("127.0.0.1", 5681, timeout=5)
    connection.request("PUT", "/meshes/default/dataplanes/redis-1", json.dumps(body),
                       {"Content-Type": "application/json"})
    status = connection.getresponse().status
    print(201 if status == 200 else status, end="")
except OSError:
    print("nobody", end="")
"""

BY_NAME = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
try:
    # Octets, as Python's own codec of names is not for this user to read.
    (*_, address), *_ = socket.getaddrinfo(b"redis.svc.mesh.local", 6379, type=socket.SOCK_STREAM)
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as client:
        client.settimeout(2)
        client.connect(address)
        print(address[0], client.recv(99).decode(), end="")
except OSError as error:
    print(type(error).__name__, end="")
"""


# What is asked wrongly


@pytest.mark.parametrize(
    "arguments,fault",
    [
        (["--user=nobody-here"], "--user: there is no user nobody-here here"),
        (["--user=1", "--vip-cidr=241.0.0.1/8"], "--vip-cidr: 241.0.0.1/8 has host bits set"),
        (["--user=1", "--vip-cidr=x"], "--vip-cidr: 'x' does not appear to be"),
    ],
)
def test_a_fault_is_one_line(arguments: list[str], fault: str) -> None:
    if shutil.which("ip", path=PATH) is None or not any(
        shutil.which(tool, path=PATH) for tool in ("nft", "iptables")
    ):
        pytest.skip("no iproute2, nftables or iptables here")
    if not any(argument.startswith("--vip-cidr") for argument in arguments):
        arguments = [*arguments, *CIDRS]

    result = CliRunner().invoke(cli, ["redirect", "install", "--dry-run", *arguments])

    assert result.exit_code == 2
    assert f"error: {fault}" in result.output


def test_without_rights_the_remedy_is_named() -> None:
    if os.geteuid() != 0:
        pytest.skip("gives up rights, which needs some")
    with namespace() as net:
        drop = (
            "import os, sys; from zonecp.dataplane.cli import main;"
            "import zonecp.dataplane.redirect.cli, zonecp.dataplane.document;"
            "os.setgid(65534); os.setuid(65534);"
            "sys.argv = ['zonedp', 'redirect', *sys.argv[1:]]; main()"
        )
        for command in ("install", "remove", "status"):
            done = net.run(sys.executable, "-c", drop, command, check=False)
            assert done.returncode == 2
            assert done.stderr.startswith("error: not permitted")
            assert "VIPs in 127.241.0.0/16 need no redirect" in done.stderr
            assert len(done.stderr.splitlines()) == 1
