"""Points a host's programs at the agent, and back: a drop-in of systemd-resolved, or resolv.conf.

A change is a list of steps, each one atomic, in an order in which every beginning of it leaves a
host that resolves and that `remove` brings back. What is replaced is kept as the very file that it
was (a hard link), so that its owner, mode, times, and whether it was a link, come back with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import EBUSY, EXDEV
from pathlib import Path
from typing import Final, NamedTuple

from zonecp.dataplane.upstreams import SAVED_SUFFIX
from zonemesh.errors import ConfigError

MARK: Final = "# Written by `zonedp resolver install`; `zonedp resolver remove` undoes it."
MADE: Final = "# Its directory was made for it."
DROP_IN: Final = Path("etc/systemd/resolved.conf.d/zonedp.conf")
RESOLV_CONF: Final = Path("etc/resolv.conf")
_KEPT: Final = ("search", "domain", "options", "sortlist")
"""Lines of resolv.conf that do not say whom to ask."""

DNS_PORT: Final = 53


class Step(NamedTuple):
    """One atomic change of a file; `content` None removes it, a path puts that file there."""

    path: Path
    content: str | Path | None
    link: bool = False
    """Whether the file at the path `content` stays where it was, too."""

    def __str__(self) -> str:
        match self.content:
            case None:
                return f"remove {self.path}"
            case Path():
                return f"{'keep' if self.link else 'move'} {self.content} as {self.path}"
            case _:
                return f"write {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where the files are, and where the agent answers."""

    root: Path = Path("/")
    addresses: tuple[str, ...]
    port: int
    domains: tuple[str, ...]

    @property
    def drop_in(self) -> Path:
        return self.root / DROP_IN

    @property
    def resolv_conf(self) -> Path:
        return self.root / RESOLV_CONF

    @property
    def saved(self) -> Path:
        return self.root / f"{RESOLV_CONF}{SAVED_SUFFIX}"

    def installed(self) -> list[str]:
        """What is in place: `resolved`, `resolv.conf`."""
        return [
            name
            for name, path in (("resolved", self.drop_in), ("resolv.conf", self.resolv_conf))
            if _is_ours(path)
        ]

    def install_resolved(self) -> list[Step]:
        """Names of the mesh go to the agent, everything else where it went.

        Raises:
            ConfigError: There is no systemd-resolved, or the drop-in is somebody else's.
        """
        directory = self.drop_in.parent
        if not directory.parent.is_dir():
            raise ConfigError([f"{directory.parent} is missing: there is no systemd-resolved here"])
        before = _read(self.drop_in)
        if before is not None and not _is_ours(self.drop_in):
            raise ConfigError([f"{self.drop_in} is not of zonedp; move it away first"])
        made = MADE in before if before is not None else not directory.exists()
        content = _drop_in(self.addresses, self.port, self.domains, made=made)
        return [] if before == content else [Step(self.drop_in, content)]

    def install_resolv_conf(self) -> list[Step]:
        """Everything goes to the agent, which asks those that were asked before.

        Raises:
            ConfigError: The agent is not on port 53, or there is no resolv.conf.
        """
        if self.port != DNS_PORT:
            why = f"the agent must be on 53, not {self.port} (--dns-port), or use --resolved"
            raise ConfigError([f"resolv.conf cannot name a port: {why}"])
        before = _read(self.saved if _is_ours(self.resolv_conf) else self.resolv_conf)
        if before is None:
            raise ConfigError([f"{self.resolv_conf} cannot be read, so it cannot be replaced"])
        content = _resolv_conf(before, self.addresses)
        if _read(self.resolv_conf) == content:
            return []
        write = Step(self.resolv_conf, content)
        if _is_ours(self.resolv_conf):
            return [write]
        return [Step(self.saved, self.resolv_conf, link=True), write]

    def remove(self) -> list[Step]:
        """Back to what was before; what somebody else wrote since stays.

        Raises:
            ConfigError: What was kept of resolv.conf is gone.
        """
        steps = self._remove_drop_in()
        saved = os.path.lexists(self.saved)
        if _is_ours(self.resolv_conf):
            if not saved:
                remedy = f"write {self.resolv_conf} by hand, or have what manages it do so"
                raise ConfigError([f"{self.saved} is gone: {remedy}"])
            return [*steps, Step(self.resolv_conf, self.saved)]
        # An installation that was broken off, or a resolv.conf that was written anew since.
        return [*steps, Step(self.saved, None)] if saved else steps

    def _remove_drop_in(self) -> list[Step]:
        if not _is_ours(self.drop_in):
            return []
        directory = self.drop_in.parent
        alone = MADE in (_read(self.drop_in) or "") and list(directory.iterdir()) == [self.drop_in]
        return [Step(self.drop_in, None), *([Step(directory, None)] if alone else [])]


def apply(steps: Iterable[Step]) -> Iterator[Step]:
    """Take the steps, saying each once it is done.

    Raises:
        ConfigError: One cannot be taken; those said before are done.
    """
    for step in steps:
        try:
            _take(step)
        except OSError as error:
            raise ConfigError([_why(step, error)]) from error
        yield step


def _take(step: Step) -> None:
    temporary = step.path.with_name(f".{step.path.name}.zonedp")
    match step.content:
        case None:
            if step.path.is_dir():
                step.path.rmdir()
            else:
                step.path.unlink(missing_ok=True)
            return
        case Path() if not step.link:
            step.content.replace(step.path)
            _sync(step.path.parent)
            return
        case Path():
            temporary.unlink(missing_ok=True)
            os.link(step.content, temporary, follow_symlinks=False)
        case text:
            step.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
    temporary.replace(step.path)
    # Two links to one file: rename(2) then does nothing, and leaves the first.
    temporary.unlink(missing_ok=True)
    _sync(step.path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(step: Step, error: OSError) -> str:
    if error.errno in (EBUSY, EXDEV):
        return (
            f"{step}: it is mounted there by a container runtime; set the container's DNS server "
            "instead (docker run --dns, dnsConfig of a pod)"
        )
    return f"{step}: {error.strerror}"


def _is_ours(path: Path) -> bool:
    text = _read(path)
    return text is not None and text.startswith(MARK)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _drop_in(addresses: Sequence[str], port: int, domains: Sequence[str], *, made: bool) -> str:
    servers = " ".join(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in addresses)
    routed = " ".join(f"~{domain}" for domain in domains)
    mark = f"{MARK}\n{MADE}" if made else MARK
    return f"{mark}\n[Resolve]\nDNS={servers}\nDomains={routed}\n"


def _resolv_conf(before: str, addresses: Sequence[str]) -> str:
    kept = [line for line in before.splitlines() if line.startswith(_KEPT)]
    return "\n".join([MARK, *(f"nameserver {address}" for address in addresses), *kept, ""])
