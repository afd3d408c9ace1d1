"""A real CoreDNS beside the agent: from a template to a running server, and back to the last good
one where that fails.

In its directory: `Corefile` is what runs, `Corefile.good` the last one with which CoreDNS came up,
`Corefile.template` the zone's template, for a start without the zone.
"""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from zonecp.dataplane.child import output_of, running
from zonecp.dataplane.coredns.corefile import (
    BUILT_IN,
    Corefile,
    CorefileError,
    Value,
    missing,
)
from zonemesh.errors import UnavailableError

log = structlog.get_logger(__name__)

START_S: Final = 10.0
"""Until CoreDNS has taken its ports; it needs 50 ms, on a busy machine more."""

QUESTION_S: Final = 10.0
"""For `-version` and `-plugins`."""

TEMPLATE_WAIT_S: Final = 2.0
"""At the start, for the zone's template: else CoreDNS would start twice."""

LINES_KEPT: Final = 20
_BANNER: Final = "CoreDNS-"
_IN_USE: Final = "address already in use"


@dataclass(frozen=True, slots=True)
class Source:
    """A template and where it is from."""

    template: Corefile
    origin: str


BUILT_IN_SOURCE: Final = Source(Corefile.parse(BUILT_IN), "built-in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    program: str
    """A path, or a name to be found on PATH."""

    directory: Path
    values: Mapping[str, Value]
    """What templates are filled in with."""


@dataclass(slots=True)
class State:
    """What is known of it; written here, read by status and metrics."""

    up: bool = False
    pid: int | None = None
    program: str | None = None
    version: str | None = None
    origin: str | None = None
    """Whose template it runs with."""

    refused: str | None = None
    """Why it does not run with the template that is wanted."""

    error: str | None = None
    """Why it does not run."""

    starts: int = 0


class _Refused(Exception):  # noqa: N818 -- no error: the last good one is tried next
    """CoreDNS ended before it was up, over what is in its Corefile."""


@dataclass(slots=True)
class _Program:
    path: Path
    version: str
    plugins: frozenset[str]
    stamp: tuple[int, int]


@dataclass(slots=True)
class _Output:
    """The last lines, and whether the banner was among them."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    up: asyncio.Event = field(default_factory=asyncio.Event)

    def said(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith(_BANNER):
            self.up.set()
        elif self.up.is_set():
            log.info("coredns_said", line=line)

    @property
    def reason(self) -> str:
        """Its last words: the line that speaks of an error, else the last one."""
        telling = [line for line in self.lines if "rror" in line or "isten" in line]
        return (telling or list(self.lines) or ["it said nothing"])[-1]


class CoreDns:
    """A component for `supervise`: one call runs CoreDNS to its end."""

    def __init__(self, options: Options, source: Source | None) -> None:
        """`source` is the data plane's own template; without it the zone's is waited for."""
        self.state = State()
        self.envoy_port_wanted = asyncio.Event()
        """Set once a template asks for the port of Envoy's filter."""

        self._options = options
        self._wanted = source or self._kept()
        self._changed = asyncio.Event()
        self._refused: Source | None = None
        self._program: _Program | None = None

    def status(self) -> dict[str, Any]:
        state = self.state
        return {
            "state": "up" if state.up else "down",
            "pid": state.pid,
            "program": state.program,
            "version": state.version,
            "port": self._options.values["CoreDNSPort"],
            "corefile": str(self._corefile),
            "template": state.origin,
            "refused": state.refused,
            "error": state.error,
            "starts": state.starts,
        }

    def check(self) -> str | None:
        """Why it does not serve, for /ready."""
        return None if self.state.up else self.state.error or "CoreDNS is not up yet"

    def want(self, source: Source, *, keep: str | None) -> None:
        """Run with this template from now on.

        Args:
            source: The template.
            keep: What to remember of it for the next start; None forgets.

        Raises:
            OSError: It cannot be remembered; it is used all the same.
        """
        before, self._wanted = self._wanted, source
        if before is None or before.template != source.template:
            self._changed.set()
        if keep is None:
            self._template.unlink(missing_ok=True)
        else:
            _write(self._template, keep)

    async def run(self) -> None:
        """Start CoreDNS, and again whenever another template is wanted.

        Raises:
            UnavailableError: It could not be started, or has ended; to be called again.
        """
        if self._wanted is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TEMPLATE_WAIT_S):
                    await self._changed.wait()
        try:
            while True:
                self._changed.clear()
                await self._run_once(self._wanted or BUILT_IN_SOURCE)
        except UnavailableError as error:
            self.state.error = str(error)
            raise
        except OSError as error:
            self.state.error = str(error)
            raise UnavailableError(f"CoreDNS: {error}") from error

    async def _run_once(self, source: Source) -> None:
        """Returns when another template is wanted."""
        program = await self._find()
        self.state.program, self.state.version = str(program.path), program.version
        if source is self._refused and self._good.exists():
            await self._serve(program, _read(self._good), "the last good one", None)
            return
        try:
            text = source.template.render(self._options.values)
            if (fault := missing(text, program.plugins, str(program.path))) is not None:
                raise _Refused(fault)
            if "EnvoyDNSPort" in source.template.fields:
                self.envoy_port_wanted.set()
            await self._serve(program, text, source.origin, source)
        except (CorefileError, _Refused) as error:
            self._refuse(source, str(error))

    def _refuse(self, source: Source, why: str) -> None:
        """Go on with the last good one, if there is one.

        Raises:
            UnavailableError: There is none.
        """
        refused = f"Corefile template {source.origin}: {why}"
        if not self._good.exists():
            raise UnavailableError(refused)
        if self.state.refused != refused:
            log.error("corefile_refused", error=refused, goes_on_with=str(self._good))
        self.state.refused, self._refused = refused, source
        self._changed.set()

    async def _serve(
        self, program: _Program, text: str, origin: str, source: Source | None
    ) -> None:
        _write(self._corefile, text)
        output = _Output()
        arguments = ("-conf", str(self._corefile), "-dns.port", str(self._port))
        async with running(program.path, *arguments, said=output.said) as process:
            self.state.pid, self.state.starts = process.pid, self.state.starts + 1
            ended = asyncio.create_task(process.wait())
            try:
                await self._come_up(ended, output)
                self._is_up(text, origin, source, process)
                if await _first(ended, self._changed):
                    code = ended.result()
                    raise UnavailableError(f"CoreDNS ended with {code}: {output.reason}")
            finally:
                ended.cancel()
                self.state.up, self.state.pid = False, None

    async def _come_up(self, ended: asyncio.Task[int], output: _Output) -> None:
        try:
            async with asyncio.timeout(START_S):
                has_ended = await _first(ended, output.up)
        except TimeoutError:
            raise UnavailableError(f"CoreDNS is not up after {START_S:g} s") from None
        if not has_ended:
            return
        await asyncio.sleep(0.05)  # for its last words, which are on their way through the pipe
        if _IN_USE in (reason := output.reason):
            raise UnavailableError(
                f"CoreDNS: a port is in use by another process: {reason};"
                " free it, or set dns.coreDnsPort (--dns-coredns-port) or dns.prometheusPort"
            )
        raise _Refused(f"{self._corefile}: {reason}")

    def _is_up(self, text: str, origin: str, source: Source | None, process: Process) -> None:
        self.state.up, self.state.error, self.state.origin = True, None, origin
        if source is not None:
            self.state.refused = self._refused = None
            _write(self._good, text)
        log.info(
            "coredns_up",
            pid=process.pid,
            version=self.state.version,
            template=origin,
            port=self._port,
        )

    async def _find(self) -> _Program:
        """The program, and what it can do; asked once per file.

        Raises:
            UnavailableError: There is none, or it is not CoreDNS.
        """
        name = self._options.program
        found = _located(name)
        if found is None:
            raise UnavailableError(
                f"CoreDNS: {name} is no program on PATH: install CoreDNS, or name it in"
                " dns.coreDnsBinaryPath (--dns-coredns-path);"
                f" names are answered on 127.0.0.1:{self._options.values['AgentDNSPort']} meanwhile"
            )
        path, stamp = found
        if self._program is None or (self._program.path, self._program.stamp) != (path, stamp):
            self._program = _Program(path, await _version(path), await _plugins(path), stamp)
        return self._program

    def _kept(self) -> Source | None:
        """The zone's template of an earlier start."""
        try:
            return Source(Corefile.parse(_read(self._template)), "of the zone, kept")
        except (OSError, UnicodeDecodeError, CorefileError):
            return None

    @property
    def _port(self) -> Value:
        return self._options.values["CoreDNSPort"]

    @property
    def _corefile(self) -> Path:
        return self._options.directory / "Corefile"

    @property
    def _good(self) -> Path:
        return self._options.directory / "Corefile.good"

    @property
    def _template(self) -> Path:
        return self._options.directory / "Corefile.template"


def _located(name: str) -> tuple[Path, tuple[int, int]] | None:
    """Where a program is, and what changes when it is replaced."""
    found = shutil.which(name)
    if found is None:
        return None
    path = Path(found).absolute()
    about = path.stat()
    return path, (about.st_mtime_ns, about.st_size)


async def _first(ended: asyncio.Task[int], event: asyncio.Event) -> bool:
    """Wait for either; whether the process has ended."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return ended.done()


async def _version(program: Path) -> str:
    said = await _ask(program, "-version")
    if not said.startswith(_BANNER):
        first = said.splitlines()[0][:80] if said else "nothing"
        raise UnavailableError(
            f"CoreDNS: {program} is not CoreDNS, -version says {first!r}: set dns.coreDnsBinaryPath"
        )
    return said.split()[0].removeprefix(_BANNER)


async def _plugins(program: Path) -> frozenset[str]:
    """What follows `dns.` in its list; the others are of Caddy."""
    said = await _ask(program, "-plugins")
    words = said.split()
    return frozenset(word.removeprefix("dns.") for word in words)


async def _ask(program: Path, flag: str) -> str:
    """Raises UnavailableError: It cannot be run, or does not answer."""
    try:
        return (await output_of(program, flag, timeout_s=QUESTION_S)).strip()
    except TimeoutError:
        raise UnavailableError(f"CoreDNS: {program} {flag} does not end") from None
    except OSError as error:
        raise UnavailableError(
            f"CoreDNS: {program}: {error.strerror}: set dns.coreDnsBinaryPath"
        ) from error


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
