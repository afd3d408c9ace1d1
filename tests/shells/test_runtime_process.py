"""A whole process: signals, exit codes, log lines, diagnostics, the stall meter."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import aiohttp
import pytest
import structlog
from aiohttp import web

from tests.patience import SLOWER
from zonemesh.errors import ConfigError, InputError, UnavailableError
from zonemesh.runtime import http, main, metrics
from zonemesh.runtime import logging as zonemesh_logging


@pytest.fixture(autouse=True)
def _default_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


PROGRAM = """
    import asyncio, sys
    from zonemesh.errors import ConfigError, UnavailableError
    from zonemesh.runtime import logging, main
    logging.configure()
    async def app(stop):
        print("started", flush=True)
        {body}
    sys.exit(main.run_main(app))
"""


def start(body: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(number: signal.Signals) -> None:
    process = start("await stop.wait(); print('stopped')")
    process.send_signal(number)
    out, err = process.communicate(timeout=SLOWER * 10)

    assert (process.returncode, out) == (0, "stopped\n")
    assert json.loads(err)["event"] == "stopping"


def test_a_second_signal_ends_at_once() -> None:
    process = start("await stop.wait(); print('stopping', flush=True); await asyncio.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SLOWER * 10)

    assert process.returncode == 128 + signal.SIGTERM


def test_it_runs_on_uvloop() -> None:
    process = start("print(asyncio.get_running_loop(), file=sys.stderr)")
    _, err = process.communicate(timeout=SLOWER * 10)

    assert (process.returncode, err[:12]) == (0, "<uvloop.Loop")


@pytest.mark.parametrize(
    "error, code, lines",
    [
        (ConfigError(["a: one", "b: two"]), 2, ["error: a: one", "error: b: two"]),
        (ExceptionGroup("x", [ConfigError(["a: one"])]), 2, ["error: a: one"]),
        (UnavailableError("redis: gone"), 1, ["error: redis: gone"]),
        (ExceptionGroup("x", [ConfigError(["a"]), InputError("b")]), 1, ["error: a", "error: b"]),
    ],
)
def test_errors_become_lines_and_an_exit_code(
    error: Exception, code: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.report(error) == code
    assert capsys.readouterr().err.splitlines() == lines


def test_a_bug_shows_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_: asyncio.Event) -> None:
        raise ZeroDivisionError

    assert main.run_main(broken) == 1
    assert "in broken" in capsys.readouterr().err


def lines_of(stream: io.StringIO, count: int) -> list[str]:
    """What the writer thread has written, once that is `count` lines."""
    deadline_s = time.monotonic() + SLOWER * 5
    while len(lines := stream.getvalue().splitlines()) < count and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return lines


def test_events_are_json_lines() -> None:
    stream = io.StringIO()
    zonemesh_logging.configure("info", stream=stream)
    with structlog.contextvars.bound_contextvars(zone="west"):
        structlog.get_logger().info("delta_applied", seq=7)
        structlog.get_logger().debug("unheard")
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("failed")

    first, second = map(json.loads, lines_of(stream, 2))
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "delta_applied", "level": "info", "zone": "west", "seq": 7}
    assert second["exception"][0]["exc_value"] == "boom"


def test_libraries_log_in_the_same_form() -> None:
    stream = io.StringIO()
    zonemesh_logging.configure("warning", stream=stream)
    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("asyncio").log(35, "odd level")
    logging.getLogger("aiohttp.access").info("unheard")
    logging.getLogger("other").info("unheard")

    lines = [json.loads(line) for line in lines_of(stream, 2)]
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("asyncio", "slow callback"),
        ("asyncio", "odd level"),
    ]


def test_the_console_form_has_the_same_keys() -> None:
    stream = io.StringIO()
    zonemesh_logging.configure("info", "console", stream=stream)
    structlog.get_logger().info("delta_applied", seq=7)

    (line,) = lines_of(stream, 1)
    assert "delta_applied" in line
    assert "seq=7" in line


class StuckStream(io.StringIO):
    """A terminal that was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.resume = threading.Event()

    def write(self, text: str) -> int:
        self.resume.wait(10)
        return super().write(text)


def test_a_stuck_reader_stops_nobody_and_losses_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zonemesh_logging, "QUEUE_LINES_MAX", 100)
    stream = StuckStream()
    zonemesh_logging.configure("info", "json", stream=stream)
    started_s = time.monotonic()
    for number in range(200):
        structlog.get_logger().info("event", number=number)
    assert time.monotonic() - started_s < 5
    stream.resume.set()

    lines = [json.loads(line) for line in lines_of(stream, 101)]
    (lost,) = (line["lines"] for line in lines if line["event"] == "log_lines_dropped")
    assert 98 <= lost <= 100


async def get(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_readiness_names_what_fails() -> None:
    why: str | None = "redis: no answer for 3 s"
    checks: dict[str, Callable[[], str | None]] = {"redis": lambda: why, "log": lambda: None}
    app = http.make_diagnostics(metrics.new_registry(), ready=checks)
    async with http.serving(app, "127.0.0.1", 0, name="diagnostics") as port:
        status, body = await get(port, "/ready")
        healthy, _ = await get(port, "/healthy")
        why = None
        status_after, _ = await get(port, "/ready")

    assert (status, healthy, status_after) == (503, 200, 200)
    assert json.loads(body) == {
        "status": "failing",
        "checks": {"redis": "redis: no answer for 3 s", "log": "ok"},
    }


async def test_metrics_are_the_registrys_own() -> None:
    app = http.make_diagnostics(metrics.new_registry(), ready={})
    async with http.serving(app, "127.0.0.1", 0, name="diagnostics") as port:
        status, body = await get(port, "/metrics")

    assert status == 200
    assert "process_resident_memory_bytes" in body
    assert "python_gc" not in body


async def test_a_port_in_use_is_a_configuration_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^rest: cannot listen on 127.0.0.1:{port}: the po"):
            async with http.serving(web.Application(), "127.0.0.1", port, name="rest"):
                pass


@pytest.mark.parametrize(
    "address, words", [("192.0.2.1", "no interface"), ("no.such.host.invalid", "unknown")]
)
async def test_a_wrong_address_is_a_configuration_fault(address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        async with http.serving(web.Application(), address, 0, name="rest"):
            pass


async def test_shutdown_lets_requests_end_within_its_bound() -> None:
    entered: asyncio.Queue[None] = asyncio.Queue()

    async def slow(request: web.Request) -> web.Response:
        entered.put_nowait(None)
        await asyncio.sleep(float(request.query["s"]))
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/slow", slow)
    async with http.serving(app, "127.0.0.1", 0, name="rest", shutdown_s=1.0) as port:
        ends = asyncio.ensure_future(get(port, "/slow?s=0.05"))
        hangs = asyncio.ensure_future(get(port, "/slow?s=60"))
        for _ in range(2):
            await entered.get()

    assert await ends == (200, "done")
    with pytest.raises(aiohttp.ClientError):
        await hangs


async def test_a_blocked_loop_is_measured() -> None:
    registry = metrics.new_registry()
    stall = metrics.LoopStall(registry)
    task = asyncio.ensure_future(stall.run())
    await asyncio.sleep(0.01)
    time.sleep(0.3)  # noqa: ASYNC251 -- the stall
    await asyncio.sleep(0.06)
    task.cancel()

    assert 0.2 < (registry.get_sample_value("zonemesh_loop_stall_max_seconds") or 0) < 20
    assert (registry.get_sample_value("zonemesh_loop_stall_seconds_count") or 0) >= 1


@pytest.mark.looptime
async def test_a_stall_is_forgotten_after_two_windows() -> None:
    registry = metrics.new_registry()
    stall = metrics.LoopStall(registry)
    stall._current_s = 0.7
    task = asyncio.ensure_future(stall.run())
    shown = []
    for _ in range(3):
        await asyncio.sleep(metrics.WINDOW_S + 1)
        shown.append(registry.get_sample_value("zonemesh_loop_stall_max_seconds"))
    task.cancel()

    assert shown[0] == 0.7
    assert shown[2] != 0.7
