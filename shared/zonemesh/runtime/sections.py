"""Sections that the configurations of both control planes have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from zonemesh.runtime.config import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON lines otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    address: str = "127.0.0.1"
    port: int = setting(5681, minimum=0, maximum=65535)
    advertised_url: str = ""
    """Where standbys reach this replica for writes; "" is http://address:port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    http: HttpConfig = field(default_factory=HttpConfig)
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticsConfig:
    address: str = "127.0.0.1"
    port: int = setting(-1, minimum=-1, maximum=65535)
    """-1: the REST port less one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    entries: int = setting(20_000, minimum=10)
    bytes: int = setting(48 << 20, minimum=1 << 20)
