"""Single values of a configuration: durations as Go writes them, conversions, masking."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

MASK = "*****"


class UnfitError(ValueError):
    """The value does not fit the field; always caught, and reported with the others."""


_URL_PASSWORD = re.compile(r"(://[^/@\s?#]*?:)[^/\s]*@")
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*password=)[^&#\s]+", re.IGNORECASE)


def mask_url(text: str) -> str:
    """Replace the password of a URL, in its authority or its query, by `*****`."""
    return _QUERY_PASSWORD.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}@", text))


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Read a duration (`1h30m`, `250ms`, `0`) into seconds.

    Raises:
        UnfitError: Not of that form; a number without a unit included.
    """
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UnfitError(f"{text!r} is not a duration such as 5s, 250ms or 1h30m")
    return round(sum(float(number) * _UNIT_S[unit] for number, unit in parts), 9)


def format_duration(seconds: float) -> str:
    """Undo `parse_duration`, exact to the microsecond."""
    micros = round(seconds * 1e6)
    if 0 < micros < 1_000_000:
        return f"{micros / 1000:g}ms" if micros >= 1000 else f"{micros}us"
    minutes, micros = divmod(micros, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h" * (hours > 0), f"{minutes}m" * (minutes > 0)]
    if micros or not (hours or minutes):
        parts.append(f"{micros / 1e6:.6f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def without_none(hint: Any) -> tuple[Any, bool]:
    """Strip `| None` off a type; say whether it was there."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0], True
    return hint, False


def convert(hint: Any, raw: Any, *, text: bool, duration: bool) -> Any:
    """Bring one given value to a field's type.

    Args:
        hint: str, bool, int, float, Path, a Literal of strings, tuple[str, ...], or one `| None`.
        raw: As YAML gave it, or a string.
        text: `raw` is a string because it came from the environment; "" is None where allowed.
        duration: It is a duration; the result is in seconds.

    Raises:
        UnfitError: Not of that type.
    """
    kind, optional = without_none(hint)
    if optional and text and raw == "":
        return None
    if duration:
        return _duration(raw)
    if get_origin(kind) is Literal:
        return _choice(get_args(kind), raw)
    if get_origin(kind) is tuple:
        return _texts(raw)
    if kind is Path:
        return Path(_exactly(str, raw))
    return _exactly(kind, _parsed(kind, raw) if text else raw)


def check_range(value: Any, minimum: float | None, maximum: float | None) -> None:
    """Raise `UnfitError` if a number is out of bounds; None is in any."""
    if minimum is not None and value is not None and value < minimum:
        raise UnfitError(f"{value:g} is less than {minimum:g}")
    if maximum is not None and value is not None and value > maximum:
        raise UnfitError(f"{value:g} is more than {maximum:g}")


def _duration(raw: Any) -> float:
    if raw == 0 and type(raw) is int:
        return 0.0
    if not isinstance(raw, str):
        raise UnfitError(f"{raw!r} has no unit; write a duration such as 5s, 250ms or 1h30m")
    return parse_duration(raw)


def _choice(choices: tuple[str, ...], raw: Any) -> Any:
    if raw not in choices:
        raise UnfitError(f"{raw!r} is none of {', '.join(choices)}")
    return raw


def _texts(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
        return tuple(raw)
    raise UnfitError(f"{raw!r} is not a list of strings")


_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
_BOOLS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
"""What Go's ParseBool reads, and so every existing `KUMA_…` variable."""


def _parsed(kind: Any, text: str) -> Any:
    """A variable's text as YAML would have given it; itself where it does not look like one."""
    if kind is bool:
        return _BOOLS.get(text.lower(), text)
    if kind is int and _INTEGER.fullmatch(text):
        return int(text)
    if kind is float and _NUMBER.fullmatch(text):
        return float(text)
    return text


_NAMES = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}


def _exactly(kind: Any, raw: Any) -> Any:
    if kind is float and type(raw) is int:
        return float(raw)
    if type(raw) is not kind:  # not isinstance: YAML's true is an int to Python
        raise UnfitError(f"{raw!r} is not {_NAMES[kind]}")
    return raw
