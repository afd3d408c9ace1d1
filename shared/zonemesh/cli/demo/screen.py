"""The demo as a live screen: who runs, who leads, what resolves to what, and what is being done."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from zonemesh.cli.demo.mesh import SERVICE, name_in
from zonemesh.cli.demo.observe import Observer
from zonemesh.cli.demo.story import Mark, Shown, Story

EVERY_S = 0.125
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BARS = "▁▂▃▄▅▆▇█"
_BAR_MS = 4.0
"""One step of the sparkline: its full height is 32 ms."""
_SAMPLES_SHOWN = 24
_DOTS = {"leads": "●", "killed": "✗", "ended": "✗", "stands by": "○", "to come": "·"}


class Screen:
    """Draws the story; the alternate screen, so that the terminal is as before afterwards."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._console = console
        self._observer = Observer(story)

    def began(self, shown: Shown) -> None:
        """Seen at the next redraw."""

    def ended(self, shown: Shown) -> None:
        """Seen at the next redraw."""

    async def run(self) -> None:
        """Redraw until cancelled."""
        # No thread of rich's: between two redraws nothing competes with what is measured.
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._observer.run())
                while True:
                    async with self._story.measuring:
                        live.update(self._draw(), refresh=True)
                    await asyncio.sleep(EVERY_S)

    def _draw(self) -> RenderableType:
        above: list[RenderableType] = [
            self._head(),
            Rule(style="dim"),
            self._planes(),
            Rule(style="dim"),
            self._services(),
            *self._measured(),
            Rule(style="dim"),
        ]
        below = self._below()
        options = self._console.options.update_width(self._console.width)
        used = sum(len(self._console.render_lines(part, options)) for part in (*above, *below))
        return Group(*above, *self._steps(max(2, self._console.height - used)), *below)

    def _head(self) -> RenderableType:
        minutes, seconds = divmod(int(self._story.elapsed_s), 60)
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(
            Text.assemble(("zonemesh", "bold magenta"), " one address per service, in every zone"),
            Text.assemble(f"{minutes:02}:{seconds:02}  ", ("Ctrl-C", "bold"), " ends it"),
        )
        return head

    def _planes(self) -> RenderableType:
        table = _grid(4)
        for sight in self._observer.sights.values():
            dot = _DOTS.get(sight.state, "●")
            table.add_row(
                Text(sight.name, "bold"),
                Text(f"{dot} {sight.state}", sight.style),
                Text(sight.where, "dim"),
                sight.detail,
            )
        return table

    def _services(self) -> RenderableType:
        table = _grid(4)
        table.add_row(*(Text(title, "dim") for title in ("service", "address", "west", "east")))
        for row in self._story.rows.values():
            note = Text(row.note, "italic yellow")
            table.add_row(
                Text.assemble((row.service, "bold"), "\n", note),
                Text("\n".join(row.ips), "bold cyan"),
                row.name_in("west"),
                row.name_in("east"),
            )
        return table

    def _measured(self) -> Iterator[RenderableType]:
        story, found = self._story, self._story.propagation()
        if found["n"]:
            yield Text.assemble(
                ("PUT in west → DNS answer in east ", "dim"),
                (_spark(story.samples_ms[-_SAMPLES_SHOWN:]), "green"),
                (f"  p50 {found['p50']} ms", "bold green"),
                f"  max {found['max']} ms",
            )
        watch = story.watch
        if watch.asked:
            wrong = (f"{watch.failed:,} missing or wrong", "bold red" if watch.failed else "green")
            yield Text.assemble(
                (f"{SERVICE} asked 50 times a second    ", "dim"),
                f"{watch.asked:,} answers, ",
                wrong,
            )
        if (loading := story.loading) is not None and loading.resolvable < loading.total:
            bars = _grid(3)
            for about, done in (
                ("registered in west", loading.registered),
                ("resolvable in east", loading.resolvable),
            ):
                bar = ProgressBar(total=loading.total, completed=done, width=40)
                bars.add_row(Text(about, "dim"), bar, f"{done:,} of {loading.total:,}")
            yield bars

    def _steps(self, height: int) -> Iterator[RenderableType]:
        """As many lines as fit: the step in progress, what came before, then what is to come."""
        lines: list[Text] = []
        current = 0
        for shown in self._story.steps:
            lines += _step_lines(shown)
            if shown.mark is not Mark.TO_COME:
                current = len(lines)
        first = max(0, min(current, len(lines)) - height)
        room = lines[first : first + height]
        yield from room
        yield from itertools.repeat(Text(), height - len(room))

    def _below(self) -> list[RenderableType]:
        if any(not shown.mark.over for shown in self._story.steps):
            return []
        ports = self._story.mesh.ports
        return [
            Rule(style="dim"),
            Text.assemble(
                ("The mesh is yours until Ctrl-C. Try, in another terminal:\n", "bold"),
                f"  dig @127.0.0.1 -p {ports.east_dns} +noall +answer {name_in('east', SERVICE)}\n",
                f"  curl -s {self._story.mesh.urls['east']}/meshes/default/_vips\n",
                *([f"  curl {self._story.web_url}\n"] if self._story.web_url else []),
                f"  tail -f {self._story.mesh.directory}/*.log",
            ),
        ]


def _step_lines(shown: Shown) -> list[Text]:
    title = shown.step.title
    lines: list[Text]
    match shown.mark:
        case Mark.TO_COME:
            lines = [Text(f"  {title}", "dim")]
        case Mark.RUNNING:
            frame = _SPINNER[int(time.monotonic() / EVERY_S) % len(_SPINNER)]
            lines = [Text.assemble((f"{frame} ", "bold yellow"), (title, "bold"))]
        case Mark.OK:
            lines = [
                Text.assemble(("✓ ", "bold green"), title),
                Text(f"  {shown.found}", "dim"),
            ]
        case Mark.LEFT_OUT:
            lines = [Text.assemble(("- ", "yellow"), title), Text(f"  {shown.found}", "yellow")]
        case Mark.FAILED:
            lines = [
                Text.assemble(("✗ ", "bold red"), (title, "bold")),
                Text(f"  {shown.found}", "red"),
            ]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _spark(samples_ms: list[float]) -> str:
    return "".join(_BARS[min(int(ms / _BAR_MS), len(_BARS) - 1)] for ms in samples_ms)


def _grid(columns: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    for _ in range(columns):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    return grid
