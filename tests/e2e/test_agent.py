"""The life of an agent's Dataplane: health, restarts of either side, the end, two of one name."""

from __future__ import annotations

import http.server
import shutil
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.alone import DOCUMENT, Alone, alone, redis
from tests.e2e.mesh import HOST, POLL_S, eventually, request

pytestmark = pytest.mark.timeout(90)

PROBE = {"interval": "50ms", "timeout": "1s", "unhealthyThreshold": 2, "healthyThreshold": 2}


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Alone]:
    with alone(tmp_path) as found:
        yield found


class Accepting(socketserver.TCPServer):
    """Accepts and closes: connections that wait to be accepted would fill the kernel's queue."""

    allow_reuse_address = True


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    """A workload; its port."""
    with Accepting((HOST, port), socketserver.BaseRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=[POLL_S], daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def test_a_services_state_follows_its_workload(zone: Alone) -> None:
    with listening() as port:
        zone.add_agent("agent", redis(port, serviceProbe={**PROBE, "tcp": {}}))
        zone.start("agent")

        eventually(lambda: zone.inbound_states() == ["Ready"])
        eventually(lambda: zone.service_state() == "Available")
        eventually(lambda: zone.endpoints_ready() == [True])

    eventually(lambda: zone.inbound_states() == ["NotReady"])
    eventually(lambda: zone.service_state() == "Unavailable")
    eventually(lambda: zone.endpoints_ready() == [False])
    assert f'zonedp_inbound_ready{{inbound="{port}"}} 0.0' in zone.metrics("agent")

    with listening(port):
        eventually(lambda: zone.inbound_states() == ["Ready"])
        eventually(lambda: zone.service_state() == "Available")
        assert f'zonedp_inbound_ready{{inbound="{port}"}} 1.0' in zone.metrics("agent")
    assert "inbound_not_ready" in zone.log("agent")
    assert 'result="failed"' in zone.metrics("agent")


def test_a_workload_over_http_is_what_its_path_answers(zone: Alone) -> None:
    answers = {"status": 503}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers["status"] if self.path == "/health" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as workload:
        threading.Thread(target=workload.serve_forever, daemon=True).start()
        port = workload.server_address[1]
        zone.add_agent("agent", redis(port, serviceProbe={**PROBE, "http": {"path": "/health"}}))
        zone.start("agent")
        eventually(lambda: zone.inbound_states() == ["NotReady"])
        answers["status"] = 200
        eventually(lambda: zone.inbound_states() == ["Ready"])
        workload.shutdown()

    assert "/health answered 503" in zone.log("agent")


def test_a_healthy_workload_stays_ready_over_a_restart_of_its_agent(zone: Alone) -> None:
    with listening() as port:
        agent = zone.add_agent("agent", redis(port, serviceProbe=PROBE))
        zone.start("agent")
        eventually(lambda: zone.inbound_states() == ["Ready"])
        agent.kill()
        before = registrations(zone)  # none, if it was killed before it had said so
        zone.start("agent")
        eventually(lambda: registrations(zone) > before)
        agent.kill()

    assert "inbound_not_ready" not in zone.log("agent")
    assert registrations(zone) == before + 1


def registrations(zone: Alone) -> int:
    return zone.log("agent").count("dataplane_registered")


def test_a_zone_that_lost_everything_is_told_again(zone: Alone) -> None:
    zone.add_agent("agent", redis())
    zone.start("agent")
    eventually(lambda: zone.dataplane() is not None)

    zone.processes["west"].kill()
    shutil.rmtree(zone.directory / "west.data")
    zone.start("west")

    eventually(lambda: zone.dataplane() is not None, 20)


def test_a_dataplane_that_was_deleted_is_there_again_after_the_next_connection(
    zone: Alone,
) -> None:
    zone.add_agent("agent", redis())
    zone.start("agent")
    eventually(lambda: zone.dataplane() is not None)
    eventually(lambda: "feed_connected" in zone.log("agent"))
    assert request(zone.port, "DELETE", DOCUMENT)[0] == 200

    zone.processes["west"].kill()
    zone.start("west")

    eventually(lambda: zone.dataplane() is not None, 20)


def test_an_agent_drains_before_it_withdraws(zone: Alone) -> None:
    agent = zone.add_agent("agent", redis(), dataplane={"drainTime": "8s"})
    zone.start("agent")
    eventually(lambda: zone.endpoints_ready() == [True])

    stopping = threading.Thread(target=agent.stop)
    stopping.start()
    eventually(lambda: zone.inbound_states() == ["NotReady"])
    assert agent.running
    assert zone.is_ready("agent")  # names are served meanwhile
    eventually(lambda: zone.dataplane() is None)
    stopping.join()

    log = zone.log("agent")
    assert log.index("dataplane_draining") < log.index("dataplane_deregistered")


def test_an_agent_goes_on_at_the_next_control_plane(zone: Alone) -> None:
    agent = zone.add_agent(
        "agent", redis(), controlPlane={"url": f"http://{HOST}:1,{zone.url}", "silence": "2s"}
    )
    zone.start("agent")

    eventually(lambda: zone.dataplane() is not None)
    assert agent.stop() == 0
    assert zone.dataplane() is None


def test_the_second_agent_of_one_name_is_told_and_changes_nothing(zone: Alone) -> None:
    first = zone.add_agent("first", redis(6379))
    second = zone.add_agent("second", redis(6380))
    zone.start("first")
    eventually(lambda: zone.dataplane() is not None)
    eventually(lambda: "feed_connected" in zone.log("first"))
    zone.start("second")

    eventually(lambda: "another agent (" in zone.log("second"))
    found = zone.dataplane()
    assert found is not None
    assert found["networking"]["inbound"][0]["port"] == 6379
    assert "zonedp_registered 0.0" in zone.metrics("second")
    assert "runs as Dataplane redis-1: stop one of the two" in zone.log("second")

    first.kill()
    eventually(lambda: (zone.dataplane() or found)["networking"]["inbound"][0]["port"] == 6380, 20)
    assert second.stop() == 0
    assert zone.dataplane() is None


def test_the_second_agent_that_stops_does_not_withdraw_the_first_ones_dataplane(
    zone: Alone,
) -> None:
    zone.add_agent("first", redis())
    second = zone.add_agent("second", redis())
    zone.start("first")
    eventually(lambda: "feed_connected" in zone.log("first") and zone.dataplane() is not None)
    zone.start("second")
    eventually(lambda: "another agent (" in zone.log("second"))

    assert second.stop() == 0

    assert zone.dataplane() is not None


def test_a_probe_that_makes_no_sense_is_a_fault_of_the_document(zone: Alone) -> None:
    agent = zone.add_agent("agent", redis(serviceProbe={"interval": "fast"}))
    agent.start()

    assert agent.wait(20) == 2
    path = "networking.inbound[0].serviceProbe.interval"
    assert f"dataplane.yaml: {path}: 'fast' is not a duration" in zone.log("agent")
