"""The demo as lines, for logs and pipes: one per step, when it has ended."""

from __future__ import annotations

import asyncio

import click

from zonemesh.cli.demo.story import Mark, Shown, Story

SAY_S = 10.0
"""Between two lines while the mesh just runs."""


class Lines:
    def __init__(self, story: Story) -> None:
        self._story = story

    def began(self, shown: Shown) -> None:
        """Nothing: what hangs fails in its own time, and then says so."""

    def ended(self, shown: Shown) -> None:
        mark = {Mark.OK: "ok    ", Mark.LEFT_OUT: "--    ", Mark.FAILED: "FAILED"}[shown.mark]
        say(f"{self._story.elapsed_s:6.2f} s  {mark}  {shown.step.title}: {shown.found}")

    async def run(self) -> None:
        """Report now and then once the steps are over."""
        while True:
            await asyncio.sleep(SAY_S)
            if all(shown.mark.over for shown in self._story.steps):
                found, watch = self._story.propagation(), self._story.watch
                say(
                    f"{self._story.elapsed_s:6.2f} s          PUT in west to answer in east:"
                    f" p50 {found['p50']} ms, max {found['max']} ms;"
                    f" {watch.asked:,} questions asked, {watch.failed:,} not answered rightly"
                )


def say(line: str) -> None:
    click.echo(line)
