"""The operator's commands: where they ask, what they say where nobody answers, completion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.builders import FakeBackend
from tests.commands import add_dataplane, rows, run, serving
from tests.ports import free_port
from zonemesh.cli.main import cli

# Connections


@pytest.mark.parametrize("url", ["nowhere", "ftp://host", "http://", "http://host:port"])
def test_a_url_that_is_none_is_a_wrong_command_line(url: str) -> None:
    result = run(url, "get", "zones")

    assert result.exit_code == 2
    assert result.stderr == f"Error: --url: {url!r} is not a URL like http://127.0.0.1:5681\n"


def test_nobody_there_is_one_line() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    result = run(url, "get", "zones")

    assert result.exit_code == 1
    assert result.stderr == f"Error: {url} does not answer: Connection refused\n"


def misbehaving(answer: Callable[[], web.Response]) -> web.Application:
    async def handle(_: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda: web.Response(status=502, text="<html>\nproxy"), "(502): <html> proxy"),
        (lambda: web.Response(text="hello"), "did not answer with JSON"),
        (lambda: web.json_response([]), "did not answer with a JSON object"),
        (
            lambda: web.json_response({"title": "Access Denied"}, status=403),
            "Error: Access Denied",
        ),
    ],
    ids=["proxy", "text", "list", "title"],
)
def test_what_is_no_control_plane_is_told_in_a_line(
    answer: Callable[[], web.Response], words: str
) -> None:
    with serving(misbehaving(answer)) as url:
        result = run(url, "get", "zones")

    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_silent_control_plane_is_not_waited_for_longer_than_asked() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application()
    app.router.add_get("/_resources", hang)
    with serving(app) as url:
        result = run(url, "get", "zones", "--timeout", "0.1")

    assert result.exit_code == 1
    assert "does not answer: no answer in time" in result.stderr


def test_the_environment_says_where_to_ask(backend: FakeBackend, url: str) -> None:
    result = CliRunner(env={"ZONEMESH_URL": url}).invoke(cli, ["get", "meshes"])

    assert rows(result.stdout)[1][0] == "default"


# Completion


@pytest.mark.parametrize(
    "words, found",
    [
        ("get meshs", ["meshservices"]),
        ("delete dataplanes re", ["redis-01", "redis-02"]),
        ("describe dp redis-02", ["redis-02"]),
        ("get nothing re", []),
    ],
)
def test_the_shell_completes_kinds_and_names(
    backend: FakeBackend, url: str, words: str, found: list[str]
) -> None:
    for name in ("redis-01", "redis-02", "shop-01"):
        add_dataplane(backend, name)

    assert completions(words, url) == found


def test_a_shell_is_not_troubled_by_a_control_plane_that_is_away() -> None:
    assert completions("get mesh", f"http://127.0.0.1:{free_port()}") == []


def completions(words: str, url: str) -> list[str]:
    env = {
        "_ZONEMESH_COMPLETE": "bash_complete",
        "COMP_WORDS": f"zonemesh {words}",
        "COMP_CWORD": str(len(words.split())),
        "ZONEMESH_URL": url,
    }
    result = CliRunner(env=env).invoke(cli, prog_name="zonemesh")
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]
