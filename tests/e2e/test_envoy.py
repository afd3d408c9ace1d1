"""Connections through real Envoys: a name of the mesh, its address, a workload's answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from dns.rcode import SERVFAIL

from tests.coredns_server import BUILD_S
from tests.e2e.envoys import AGENT, Backend, EnvoyMesh, get, has_envoy, multi_zone, workload
from tests.e2e.mesh import PLANES, at_home, elsewhere, eventually, ipv6_of
from tests.ports import free
from zonecp.dataplane.cache import FILE_NAME

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not has_envoy(), reason="no Envoy for this platform"),
]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyMesh]:
    """One that runs, for tests that leave it as it was."""
    with closing(EnvoyMesh(tmp_path_factory.mktemp("envoy"))) as found:
        found.start()
        found.start(AGENT)
        yield found


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[EnvoyMesh]:
    """One for a test that breaks it."""
    with closing(EnvoyMesh(tmp_path)) as found:
        yield found


@pytest.fixture
def backend() -> Iterator[Backend]:
    found = Backend("from west")
    yield found
    found.close()


def test_a_name_leads_to_the_other_zones_workload(mesh: EnvoyMesh, backend: Backend) -> None:
    mesh.put_workload("west", "redis", backend.port)

    address = mesh.fetches(elsewhere("redis"), backend.port, "from west")

    assert address.startswith("127.241.")
    assert f"outbound:{address}:{backend.port}" in mesh.listeners()
    [cluster] = [
        each["cluster"]
        for each in mesh.config_dump("dynamic_active_clusters")
        if each["cluster"]["name"] == "kri_msvc_default_west__redis_main"
    ]
    assert cluster["type"] == "EDS"


def test_the_first_answer_for_a_new_name_can_be_connected_to(
    mesh: EnvoyMesh, backend: Backend
) -> None:
    """Not once is a name answered before Envoy listens behind it."""
    refused = []
    for number in range(20):
        name = f"early{number}"
        mesh.put_workload("west", name, backend.port)
        address = mesh.resolves("east", elsewhere(name))
        if (found := get(address, backend.port)) != "from west":
            refused.append((name, found))

    assert refused == []


def test_tcp_goes_through_too(mesh: EnvoyMesh, backend: Backend) -> None:
    mesh.put_workload("west", "raw", backend.port, protocol="tcp")

    mesh.fetches(elsewhere("raw"), backend.port, "from west")


def test_a_legacy_name_leads_there_too(mesh: EnvoyMesh, backend: Backend) -> None:
    mesh.put_workload("west", "old", backend.port)

    mesh.fetches("old.mesh", 18080, "from west")


def test_a_service_that_goes_is_refused(mesh: EnvoyMesh, backend: Backend) -> None:
    mesh.put_workload("west", "brief", backend.port)
    address = mesh.fetches(elsewhere("brief"), backend.port, "from west")

    mesh.remove("west", "brief")

    eventually(lambda: not mesh.resolve("east", elsewhere("brief")), 10, mesh, AGENT)
    eventually(lambda: get(address, backend.port) == "refused", 10, mesh, AGENT)
    eventually(lambda: not [each for each in mesh.clusters() if "__brief_" in each], 10)


def test_only_what_is_behind_a_changed_service_is_sent(mesh: EnvoyMesh, backend: Backend) -> None:
    for number in range(10):
        mesh.put_workload("west", f"many{number}", backend.port)
    mesh.fetches(elsewhere("many9"), backend.port, "from west")
    eventually(partial(_settled, mesh), 5, mesh, AGENT)
    before = mesh.metric(AGENT, "zonedp_envoy_resources_sent_total")

    mesh.put_workload("west", "one-more", backend.port)
    mesh.fetches(elsewhere("one-more"), backend.port, "from west")
    eventually(partial(_settled, mesh), 5, mesh, AGENT)

    after = mesh.metric(AGENT, "zonedp_envoy_resources_sent_total")
    sent = {each: after[each] - before[each] for each in after}
    # Its MeshService and its legacy name, each with an IPv4 and an IPv6 address.
    assert sent == {'type="cluster"': 2, 'type="endpoints"': 2, 'type="listener"': 4}


def _settled(mesh: EnvoyMesh) -> bool:
    total = mesh.metric(AGENT, "zonedp_envoy_names_held")[""]
    waiting = mesh.metric(AGENT, "zonedp_envoy_unanswered_seconds")[""]
    return total == 0 == waiting


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_when_the_instance_here_dies_the_other_zones_takes_over(
    mesh: EnvoyMesh, backend: Backend, protocol: str
) -> None:
    here, shop = Backend("from east"), f"shop-{protocol}"
    mesh.put_workload("east", shop, here.port, protocol=protocol)
    mesh.put_workload("west", shop, backend.port, protocol=protocol)
    leader = mesh.leading()
    path = f"/meshes/default/meshmultizoneservices/{shop}"
    mesh.put(leader, path, multi_zone(shop, protocol))
    address = mesh.fetches(f"{shop}.mzsvc.mesh.local", 18081, "from east")

    here.close()

    assert get(address, 18081) == "from west", "without a single failure"
    mesh.remove("west", shop)
    again = Backend("from east again", here.port)
    try:
        eventually(lambda: get(address, 18081) == "from east again", 20, mesh, AGENT)
    finally:
        again.close()


def test_an_external_hostname_is_resolved_by_envoy(mesh: EnvoyMesh, backend: Backend) -> None:
    external = {
        "type": "MeshExternalService",
        "mesh": "default",
        "name": "api",
        "spec": {
            "match": {"type": "HostnameGenerator", "port": 18082, "protocol": "http"},
            "endpoints": [{"address": "localhost", "port": backend.port}],
        },
    }
    leader = mesh.leading()
    path = "/meshes/default/meshexternalservices/api"
    mesh.put(leader, path, external)

    mesh.fetches("api.extsvc.mesh.local", 18082, "from west")


def test_a_listener_that_envoy_rejects_is_told_of_and_holds_back_nobody(
    mesh: EnvoyMesh, backend: Backend
) -> None:
    """Two agents of one host cannot both listen on an address: here the test is the other one."""
    mesh.put_workload("west", "taken", backend.port)
    address = mesh.fetches(elsewhere("taken"), backend.port, "from west")
    mesh.remove("west", "taken")
    eventually(lambda: get(address, backend.port) == "refused", 10, mesh, AGENT)
    other = Backend("somebody else", address=address, port=backend.port)
    try:
        mesh.put_workload("west", "taken", backend.port)
        mesh.put_workload("west", "fine", backend.port)

        mesh.fetches(elsewhere("fine"), backend.port, "from west")
        rejected = 'type="listener"'
        metric = partial(mesh.metric, AGENT, "zonedp_envoy_resources_rejected")
        eventually(lambda: metric()[rejected] == 1, 10, mesh, AGENT)
        [told] = mesh.status()["rejected"]
        assert told["name"] == f"outbound:{address}:{backend.port}"
        assert "Address already in use" in told["error"]
        eventually(lambda: "Address already in use" in mesh[AGENT].log.read_text(), 5)
    finally:
        other.close()
        mesh.remove("west", "taken")


def test_envoy_that_is_killed_is_started_again(mesh: EnvoyMesh, backend: Backend) -> None:
    mesh.put_workload("west", "steady", backend.port)
    mesh.fetches(elsewhere("steady"), backend.port, "from west")
    before = mesh.envoy_pid()

    mesh.kill_envoy()

    assert mesh.resolve("east", elsewhere("steady")), "names that were answered stay"
    mesh.fetches(elsewhere("steady"), backend.port, "from west")
    assert mesh.envoy_pid() != before
    assert mesh.metric(AGENT, "zonedp_envoy_failures_total")[""] >= 1


def test_without_any_control_plane_agent_and_envoy_start_again(
    fragile: EnvoyMesh, backend: Backend
) -> None:
    fragile.start()
    fragile.start(AGENT)
    fragile.put_workload("west", "redis", backend.port)
    fragile.fetches(elsewhere("redis"), backend.port, "from west")
    # Its copy on disk is at most a second behind.
    copy = fragile.data_dir(AGENT) / FILE_NAME
    eventually(lambda: copy.exists() and b"redis" in copy.read_bytes(), 5, fragile, AGENT)
    for plane in PLANES:
        fragile[plane].kill()
    fragile.kill_redis()

    assert fragile[AGENT].stop() == 0
    assert fragile.envoy_pid() is None
    fragile[AGENT].start()

    fragile.fetches(elsewhere("redis"), backend.port, "from west")


def test_an_envoy_outlives_an_agent_that_is_killed_and_is_taken_over(
    fragile: EnvoyMesh, backend: Backend
) -> None:
    fragile.start()
    fragile.start(AGENT)
    fragile.put_workload("west", "redis", backend.port)
    address = fragile.fetches(elsewhere("redis"), backend.port, "from west")
    before = fragile.envoy_pid()

    fragile[AGENT].kill()
    assert get(address, backend.port) == "from west"
    # As one that was killed before it had written its map.
    (fragile.data_dir(AGENT) / FILE_NAME).unlink(missing_ok=True)
    fragile[AGENT].start()
    fragile.wait_ready(AGENT)

    assert fragile.envoy_pid() == before
    fragile.put_workload("west", "later", backend.port)
    fragile.fetches(elsewhere("later"), backend.port, "from west")
    sent = fragile.metric(AGENT, "zonedp_envoy_resources_sent_total")
    assert sent['type="listener"'] == 4, "what it had was not sent again"


def test_without_a_program_names_are_answered_and_one_line_says_what_to_do(
    tmp_path: Path, backend: Backend
) -> None:
    mesh = EnvoyMesh(tmp_path, runtime={"binaryPath": str(tmp_path / "no-envoy")})
    try:
        mesh.start()
        mesh[AGENT].start()
        mesh.put_workload("west", "redis", backend.port)

        mesh.resolves("east", elsewhere("redis"))
        why = mesh.not_ready(AGENT)
        assert why is not None
        assert "no-envoy is not an executable file" in why
    finally:
        mesh.close()


def test_an_admin_port_in_use_is_one_line_with_its_remedy(tmp_path: Path, backend: Backend) -> None:
    mesh = EnvoyMesh(tmp_path, dataplane={"adminPort": backend.port})
    try:
        mesh.start()
        mesh[AGENT].start()

        def said() -> str:
            why = mesh.not_ready(AGENT) or ""
            return why if "in use" in why else ""

        why = eventually(said, 10, mesh, AGENT)
        assert f"port {backend.port} on 127.0.0.1 is in use" in why
        assert "--admin-port" in why
    finally:
        mesh.close()


def test_the_workloads_own_port_is_served_by_envoy(tmp_path: Path, backend: Backend) -> None:
    [port] = free(1)
    document = workload("web", port)
    [inbound] = document["networking"]["inbound"]
    inbound["servicePort"] = backend.port
    path = tmp_path / "dataplane.json"
    path.write_text(json.dumps(document))
    mesh = EnvoyMesh(tmp_path, dataplane={"name": "web-1"}, runtime={"resourcePath": str(path)})
    try:
        mesh.start()
        mesh.start(AGENT)

        mesh.fetches(at_home("web"), port, "from west")
        assert get("127.0.0.1", port) == "from west"
        assert f"inbound:127.0.0.1:{port}" in mesh.listeners()
    finally:
        mesh.close()


def test_one_listener_for_all_destinations(tmp_path: Path, backend: Backend) -> None:
    """Without root nothing is redirected: a service's port is the one that is redirected to."""
    [port] = free(1)
    mesh = EnvoyMesh(tmp_path, envoy={"arrangement": "redirect-single", "outboundPort": port})
    try:
        mesh.start()
        mesh.start(AGENT)
        mesh.put_workload("west", "redis", backend.port)
        service = {
            "type": "MeshService",
            "mesh": "default",
            "name": "front",
            "spec": {
                "selector": {"dataplaneTags": {"kuma.io/service": "redis"}},
                "ports": [{"port": port, "targetPort": backend.port, "appProtocol": "http"}],
            },
        }
        path = "/meshes/default/meshservices/front"
        mesh.put("west", path, service)

        mesh.fetches(elsewhere("front"), port, "from west")
        assert mesh.listeners() == {"outbound:passthrough:ipv4", "outbound:passthrough:ipv6"}
    finally:
        mesh.close()


def test_names_in_envoys_own_dns_filter(tmp_path: Path, backend: Backend) -> None:
    port, agent_port = free(2)
    dns = {"mode": "coredns-envoy", "coreDnsStart": False, "agentPort": agent_port}
    mesh = EnvoyMesh(tmp_path, dns={**dns, "envoyDnsPort": port})
    mesh.dns["east"] = agent_port
    try:
        mesh.start()
        mesh.start(AGENT)
        mesh.put_workload("west", "redis", backend.port)
        address = mesh.fetches(elsewhere("redis"), backend.port, "from west")

        mesh.dns["east"] = port
        assert mesh.resolves("east", elsewhere("redis")) == address
        assert mesh.resolve("east", elsewhere("redis"), "AAAA") == [ipv6_of(address)]
    finally:
        mesh.close()


@pytest.mark.timeout(BUILD_S)
def test_a_coredns_before_envoys_own_dns_filter(
    tmp_path: Path, backend: Backend, coredns_program: Path
) -> None:
    keys = ("coreDnsPort", "agentPort", "envoyDnsPort", "coreDnsEmptyPort")
    ports = dict(zip(keys, free(4), strict=True))
    dns = {"mode": "coredns-envoy", "coreDnsBinaryPath": str(coredns_program), **ports}
    mesh = EnvoyMesh(tmp_path, dns={**dns, "prometheusPort": 0})
    try:
        mesh.start()
        mesh.start(AGENT)
        mesh.put_workload("west", "redis", backend.port)
        mesh.dns["east"] = ports["agentPort"]
        address = mesh.resolves("east", elsewhere("redis"))

        mesh.dns["east"] = ports["coreDnsPort"]
        assert mesh.resolves("east", elsewhere("redis")) == address
        assert mesh.resolve("east", elsewhere("redis"), "AAAA") == [ipv6_of(address)]
        # what Envoy's filter does not answer is asked outside, where nobody is in this test
        outside = mesh.query("east", elsewhere("redis"), "TXT")
        assert outside is None or outside.rcode() == SERVFAIL
    finally:
        mesh.close()


def test_files_for_an_envoy_of_somebody_elses(tmp_path: Path, backend: Backend) -> None:
    files = tmp_path / "files"
    mesh = EnvoyMesh(
        tmp_path, envoy={"start": False, "configDir": str(files), "attachPatience": "0s"}
    )
    envoy = mesh.run_envoy_with("bootstrap")
    try:
        mesh.start()
        mesh[AGENT].start()
        eventually((files / "lds.json").exists, 10, mesh, AGENT)
        envoy.start()

        mesh.put_workload("west", "redis", backend.port)

        mesh.fetches(elsewhere("redis"), backend.port, "from west")
    finally:
        envoy.kill()
        mesh.close()


def test_an_envoy_that_somebody_else_starts_asks_the_agent(
    tmp_path: Path, backend: Backend
) -> None:
    mesh = EnvoyMesh(tmp_path, envoy={"start": False})
    envoy = mesh.run_envoy_with("bootstrap")
    try:
        mesh.start()
        mesh[AGENT].start()
        envoy.start()
        mesh.wait_ready(AGENT)

        mesh.put_workload("west", "redis", backend.port)

        mesh.fetches(elsewhere("redis"), backend.port, "from west")
    finally:
        envoy.kill()
        mesh.close()


def test_a_whole_configuration_needs_nobody(tmp_path: Path, backend: Backend) -> None:
    mesh = EnvoyMesh(tmp_path, envoy={"start": False, "attachPatience": "0s"})
    try:
        mesh.start()
        mesh[AGENT].start()
        mesh.put_workload("west", "redis", backend.port)
        mesh.resolves("east", elsewhere("redis"))
        envoy = mesh.run_envoy_with("config")
    except BaseException:
        mesh.close()
        raise
    try:
        envoy.start()

        mesh.fetches(elsewhere("redis"), backend.port, "from west")
    finally:
        envoy.kill()
        mesh.close()
