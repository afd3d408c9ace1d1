"""Configuration: YAML and environment into nested frozen dataclasses, every fault at once.

A configuration is a tree of `@dataclass(frozen=True, slots=True, kw_only=True)`. A field's YAML key
is its name in camelCase, without the `_s` of a duration; `setting(key=…)` overrides it. Relations
between fields are checked by `__post_init__`, which raises `ConfigError` with lines `field: why`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, get_type_hints, runtime_checkable

import yaml

from zonemesh.errors import ConfigError
from zonemesh.runtime import values

ENV_PREFIX = "ZONEMESH_"
ENV_ALIAS = "KUMA_"

PROCESS_WIDE = frozenset({"ZONEMESH_REDIS_SERVER"})
"""Variables that are read elsewhere and belong to no configuration file."""

T = TypeVar("T")


class _Setting(NamedTuple):
    """What `setting` adds to a field."""

    key: str | None = None
    duration: bool = False
    secret: bool = False
    minimum: float | None = None
    maximum: float | None = None
    kuma_env: tuple[str, ...] = ()


def setting(
    default: Any = MISSING,
    *,
    key: str | None = None,
    duration: bool = False,
    secret: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    kuma_env: tuple[str, ...] = (),
) -> Any:
    """Declare a field that needs more than a name, a type and a default.

    Args:
        default: Left out for a setting that must be given.
        key: The YAML key, where it is not the field's name in camelCase.
        duration: "5s", "250ms", "1h30m" → float seconds; implied by a float named `…_s`.
        secret: Never shown by `dump`.
        minimum: Smallest allowed number; of a duration in seconds.
        maximum: Largest allowed number.
        kuma_env: Kuma's names of the variable, where they are not `KUMA_` + the key path.
    """
    about = _Setting(key, duration, secret, minimum, maximum, kuma_env)
    return dataclasses.field(default=default, metadata={_Setting: about})


def load(
    cls: type[T],
    document: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    ignored: Mapping[str, str] | None = None,
) -> tuple[T, tuple[str, ...]]:
    """Make a configuration of a parsed YAML document and the environment, which wins.

    A key without a value (`tlsCertFile:`) counts as absent, as in Kuma's own defaults file.

    Args:
        cls: The root dataclass.
        document: What `read_file` returned.
        environ: `ZONEMESH_REDIS_KEY_PREFIX` sets `redis.keyPrefix`; `KUMA_…` is an alias that
            yields to it. Lists are separated by commas.
        ignored: Kuma's keys (dotted; everything below is meant too) that have no meaning here,
            with the reason for it: a warning each instead of a fault.

    Returns:
        The configuration and the warnings.

    Raises:
        ConfigError: Everything that is unknown, missing, of the wrong type or out of range.
    """
    reader = _Reader(environ, ignored or {})
    config = reader.section(cls, document, "")
    reader.check_environment(cls)
    if reader.faults or config is None:
        raise ConfigError(reader.faults)
    unused = config.without_effect() if isinstance(config, PartlyUsed) else ()
    return config, (*reader.warnings, *unused)


@runtime_checkable
class PartlyUsed(Protocol):
    """A root dataclass of which some values may go unused, depending on others."""

    def without_effect(self) -> Sequence[str]:
        """A warning for each value that was set in vain."""


def changed_keys(section: Any) -> list[str]:
    """Keys of a section, without sections in it, whose values are not the defaults."""
    defaults = type(section)()
    return [
        option.key
        for option in _options(type(section))
        if getattr(section, option.field) != getattr(defaults, option.field)
    ]


def read_file(path: Path) -> Mapping[str, Any]:
    """Parse a YAML file; an empty one is an empty mapping.

    Raises:
        ConfigError: Not readable, not YAML, not a mapping, or a key that appears twice.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # noqa: S506 -- safe
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: nested too deeply"]) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: not a mapping of keys"])
    return document


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here the first one's loss is a fault."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 -- PyYAML's signature
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def dump(config: Any) -> dict[str, Any]:
    """The effective configuration in YAML keys, with secrets (and passwords in URLs) masked."""
    shown: dict[str, Any] = {}
    for option in _options(type(config)):
        value = getattr(config, option.field)
        if option.section is not None and value is not None:
            shown[option.key] = dump(value)
        else:
            shown[option.key] = _shown(option, value)
    return shown


def _shown(option: _Option, value: Any) -> Any:
    if option.about.secret and value:
        return values.MASK
    if option.duration and value is not None:
        return values.format_duration(value)
    if isinstance(value, tuple):
        return [values.mask_url(item) for item in value]
    if isinstance(value, str | Path):
        return values.mask_url(str(value))
    return value


class _Option(NamedTuple):
    """One field of a section, as `load` sees it."""

    field: str
    key: str
    type: Any
    section: type[Any] | None
    required: bool
    duration: bool
    about: _Setting


def _options(cls: type[Any]) -> Iterator[_Option]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        about: _Setting = field.metadata.get(_Setting, _Setting())
        hint, _ = values.without_none(hints[field.name])
        duration = about.duration or (hint is float and field.name.endswith("_s"))
        yield _Option(
            field=field.name,
            key=about.key or _camel(field.name.removesuffix("_s") if duration else field.name),
            type=hints[field.name],
            section=hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None,
            required=_required(field),
            duration=duration,
            about=about,
        )


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def env_name(path: str, prefix: str = ENV_PREFIX) -> str:
    """`redis.keyPrefix` → `ZONEMESH_REDIS_KEY_PREFIX`."""
    return prefix + _HUMP.sub("_", path).replace(".", "_").upper()


class _Reader:
    """One `load`: collects faults and warnings instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str], ignored: Mapping[str, str]) -> None:
        self._environ = environ
        self._ignored = ignored
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def section(self, cls: type[T], document: Any, path: str) -> T | None:
        if not isinstance(document, Mapping):
            name = path.removesuffix(".")
            self.faults.append(f"{name}: a section of keys is expected, not {document!r}")
            document = {}
        options = list(_options(cls))
        self._unknown(document, path, [option.key for option in options])
        given: dict[str, Any] = {}
        complete = True
        for option in options:
            value = self._value(option, document.get(option.key), f"{path}{option.key}")
            if value is not MISSING:
                given[option.field] = value
            complete = complete and (value is not MISSING or not option.required)
        return self._construct(cls, given, path) if complete else None

    def _construct(self, cls: type[T], given: dict[str, Any], path: str) -> T | None:
        try:
            return cls(**given)
        except ConfigError as error:
            names = {option.field: option.key for option in _options(cls)}
            for fault in error.faults:
                field, colon, why = fault.partition(":")
                self.faults.append(f"{path}{names.get(field, field)}{colon}{why}")
            return None

    def _value(self, option: _Option, given: Any, path: str) -> Any:
        """The value of one field; MISSING leaves its default (after a fault, too)."""
        if option.section is not None:
            section = self.section(option.section, {} if given is None else given, f"{path}.")
            return MISSING if section is None else section
        source, raw = self._source(option, given, path)
        if raw is None:
            if option.required:
                self.faults.append(f"{path}: must be given (or {env_name(path)})")
            return MISSING
        try:
            value = values.convert(option.type, raw, text=source != path, duration=option.duration)
            values.check_range(value, option.about.minimum, option.about.maximum)
        except values.UnfitError as error:
            self.faults.append(f"{source}: {values.MASK if option.about.secret else error}")
            return MISSING
        return value

    def _source(self, option: _Option, given: Any, path: str) -> tuple[str, Any]:
        for name in _env_names(option, path):
            if name in self._environ:
                return name, self._environ[name]
        return path, given

    def _unknown(self, document: Mapping[str, Any], path: str, known: list[str]) -> None:
        for key, value in document.items():
            if key in known:
                continue
            full = f"{path}{key}"
            if full in self._ignored:
                self._warn(full, full)
            elif isinstance(value, Mapping) and self._ignored_below(full):
                self._unknown(value, f"{full}.", [])
            else:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"; did you mean {path}{near[0]}?" if near else ""
                self.faults.append(f"{full}: unknown key{hint}")

    def _ignored_below(self, path: str) -> bool:
        return any(key.startswith(f"{path}.") for key in self._ignored)

    def _warn(self, path: str, source: str) -> None:
        warning = f"{source}: ignored: {self._ignored[path]}"
        if warning not in self.warnings:
            self.warnings.append(warning)

    def check_environment(self, cls: type[Any]) -> None:
        """Refuse `ZONEMESH_…` variables that set nothing; `KUMA_…` ones may be someone else's."""
        known = set(_all_env_names(cls, ""))
        own = sorted(name for name in known if name.startswith(ENV_PREFIX))
        for name, value in sorted(self._environ.items()):
            if not name.startswith((ENV_PREFIX, ENV_ALIAS)) or name in known | PROCESS_WIDE:
                continue
            path = self._ignored_path(name)
            if path is not None:
                self._warn(path, name)
            elif name.startswith(ENV_PREFIX) and not _is_service_link(name, value):
                near = difflib.get_close_matches(name, own, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.faults.append(f"{name}: unknown variable{hint}")

    def _ignored_path(self, name: str) -> str | None:
        bare = f"{name.partition('_')[2]}_"
        for path in self._ignored:
            if bare.startswith(f"{env_name(path, '')}_"):
                return path
        return None


def _env_names(option: _Option, path: str) -> tuple[str, ...]:
    return (env_name(path), *(option.about.kuma_env or (env_name(path, ENV_ALIAS),)))


def _all_env_names(cls: type[Any], path: str) -> Iterator[str]:
    for option in _options(cls):
        full = f"{path}{option.key}"
        if option.section is None:
            yield from _env_names(option, full)
        else:
            yield from _all_env_names(option.section, f"{full}.")


_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes made it: every Service `zonemesh-x` puts `ZONEMESH_X_…` into each pod."""
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and "://" in value)
