"""Runs the demo: its steps, then a mesh to play with, and in the end nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import time
from typing import Any, Protocol

import click
from rich.console import Console

from zonemesh.cli.demo.mesh import STOP_ORDER, Mesh
from zonemesh.cli.demo.plain import Lines, say
from zonemesh.cli.demo.ports import Ports
from zonemesh.cli.demo.processes import Processes, last_words
from zonemesh.cli.demo.screen import Screen
from zonemesh.cli.demo.steps import STEPS, measure
from zonemesh.cli.demo.story import (
    Mark,
    Shown,
    StepFailedError,
    StepLeftOutError,
    Story,
)
from zonemesh.cli.demo.watch import Watch
from zonemesh.errors import MeshError

TICK_S = 1.0
"""Between two measured registrations once the steps are over."""

TICKS = 60
"""Services that come and go in turn, each gone for far longer than its grace period."""

SAMPLES_KEPT = 200


class Output(Protocol):
    def began(self, shown: Shown) -> None: ...

    def ended(self, shown: Shown) -> None: ...

    async def run(self) -> None: ...


async def play(ports: Ports, *, check: bool, services: int) -> int:
    """Run the demo; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    console = Console()
    with Processes() as processes:
        mesh = Mesh(processes, ports)
        steps = [Shown(step) for step in STEPS if step.key != "load" or services]
        story = Story(mesh, Watch(mesh), steps, services)
        live = console.is_terminal and not check
        output: Output = Screen(story, console) if live else Lines(story)
        if not live:
            say(f"zonemesh demo: two globals, two zones and their agents in {mesh.directory}")
        try:
            await _until_stopped(story, output, stop, watched=live, check=check)
            failed = _failed(story)
            if failed is not None:
                _explain(story, failed)
        finally:
            await processes.stop(STOP_ORDER)
            await mesh.close()
    gone = f"Everything is gone: {len(processes)} processes ended, {mesh.directory} removed."
    click.echo(gone)
    if check:
        click.echo(json.dumps(summary(story)))
        return 0 if summary(story)["ok"] else 1
    return 0 if failed is None else 1


def summary(story: Story) -> dict[str, Any]:
    """The JSON line of `--check`."""
    return {
        "ok": all(shown.mark.over for shown in story.steps),
        "checks": {shown.step.key: _check(shown) for shown in story.steps},
        "left_out": {
            shown.step.key: shown.found for shown in story.steps if shown.mark is Mark.LEFT_OUT
        },
        "propagation_ms": story.propagation(),
        "failover_s": None,
        "services": story.services,
        **story.figures,
        "seconds": round(story.elapsed_s, 1),
        "error": failed.found if (failed := _failed(story)) is not None else None,
    }


async def _until_stopped(
    story: Story, output: Output, stop: asyncio.Event, *, watched: bool, check: bool
) -> None:
    """Until the steps are over (`check`), one has failed, or somebody wants it to end."""
    background = [asyncio.create_task(run()) for run in (story.watch.run, output.run)]
    show = asyncio.create_task(_show(story, output, watched=watched, go_on=not check))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([show, stopping, *background], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (show, stopping, *background):
            task.cancel()
        results = await asyncio.gather(show, stopping, *background, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _show(story: Story, output: Output, *, watched: bool, go_on: bool) -> None:
    for shown in story.steps:
        shown.mark = Mark.RUNNING
        output.began(shown)
        if watched:
            await asyncio.sleep(shown.step.pause_s)
        started_s = time.monotonic()
        try:
            shown.found = await shown.step.run(story)
            shown.mark = Mark.OK
        except* MeshError as errors:
            error = _first(errors)
            left_out = isinstance(error, StepLeftOutError)
            shown.mark, shown.found = Mark.LEFT_OUT if left_out else Mark.FAILED, str(error)
        shown.seconds = time.monotonic() - started_s
        output.ended(shown)
        if shown.mark is Mark.FAILED:
            return
    if go_on:
        if not watched:
            say("The mesh runs until Ctrl-C.")
        await _go_on(story)


async def _go_on(story: Story) -> None:
    """Keep measuring, with a service that comes and goes; whoever plays may break anything."""
    # In turn, as the address of each that is removed rests for a day: none is used up by watching.
    for number in itertools.cycle(range(1, TICKS + 1)):
        service = f"tick-{number}"
        with contextlib.suppress(StepFailedError):
            await measure(story, service)
        del story.samples_ms[:-SAMPLES_KEPT]
        await story.mesh.remove(service)
        await asyncio.sleep(TICK_S)


def _first(errors: BaseExceptionGroup[MeshError]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _check(shown: Shown) -> bool | None:
    return None if shown.mark is Mark.LEFT_OUT else shown.mark is Mark.OK


def _failed(story: Story) -> Shown | None:
    return next((shown for shown in story.steps if shown.mark is Mark.FAILED), None)


def _explain(story: Story, failed: Shown) -> None:
    """What failed, and what the processes concerned said last."""
    click.echo(f"FAILED: {failed.step.title}: {failed.found}", err=True)
    ended = story.mesh.processes.failed()
    about = failed.step.about if ended is None else (ended.name,)
    for child in story.mesh.processes:
        if child.name in about:
            state = "" if child.running else f" (exit code {child.process.returncode})"
            click.echo(f"--- {child.name}{state}, end of its log:", err=True)
            for line in last_words(child.log):
                click.echo(f"    {line}", err=True)
