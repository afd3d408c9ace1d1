"""VirtualOutbound: which host and port a Dataplane's inbound gets, by its tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from zonemesh.errors import InputError
from zonemesh.members import SERVICE_TAG
from zonemesh.model import Record
from zonemesh.names import is_dns_name
from zonemesh.resources.ports import parsed_port
from zonemesh.resources.validation import PORT_MAX
from zonemesh.template import Template, TemplateError

VIRTUAL_OUTBOUND = "VirtualOutbound"
ANY = "*"


class Specificity(NamedTuple):
    """How closely a selector describes: Kuma's order of policies, the greater first."""

    tags: int
    exact: int
    """Of the tags, those with a value."""


class Selector(NamedTuple):
    match: tuple[tuple[str, str], ...]
    specificity: Specificity

    def matches(self, tags: Mapping[str, str]) -> bool:
        return all(
            tag in tags and (value == ANY or tags[tag] == value) for tag, value in self.match
        )


class Rendered(NamedTuple):
    """What a VirtualOutbound makes of one inbound's tags."""

    host: str
    port: int
    values: str
    """The values of the parameters' tags, NUL between them: they tell what stands behind it."""
    specificity: Specificity
    """Of the closest selector that matches."""


@dataclass(frozen=True, slots=True)
class VirtualOutbound:
    """A VirtualOutbound with its templates parsed."""

    key: str
    created_ms: int
    selectors: tuple[Selector, ...]
    host: Template
    port: Template
    parameters: tuple[tuple[str, str], ...]
    """Field of the templates and the tag that it stands for."""

    @classmethod
    def parse(cls, key: str, record: Record) -> Self:
        """Read a record.

        Raises:
            InputError: A field is missing or of the wrong shape, or a template does not parse.
        """
        try:
            conf = record.spec["conf"]
            return cls(
                key,
                record.created_ms,
                # The closest first: the first that matches decides. An empty one matches nothing.
                tuple(
                    sorted(
                        (_selector(each["match"]) for each in record.spec["selectors"]),
                        key=lambda selector: selector.specificity,
                        reverse=True,
                    )
                ),
                Template.parse(conf["host"]),
                Template.parse(str(conf["port"])),
                tuple(
                    (_text(each["name"]), _text(each.get("tagKey") or each["name"]))
                    for each in conf.get("parameters") or ()
                ),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{key} is no VirtualOutbound: {error!r}") from error

    def render(self, tags: Mapping[str, str]) -> Rendered | None:
        """What an inbound with these tags gets; None if no selector matches.

        Raises:
            TemplateError: The templates do not make a host and a port of these tags.
        """
        for selector in self.selectors:
            if selector.matches(tags):
                break
        else:
            return None
        data = {name: tags[tag] for name, tag in self.parameters if tag in tags}
        values = "\0".join([tags.get(tag, "") for _, tag in self.parameters])
        host = _host(self.host.render(data))
        return Rendered(host, _port(self.port.render(data)), values, selector.specificity)

    def service(self, values: str) -> str | None:
        """The service among the values of a `Rendered`."""
        for (_, tag), value in zip(self.parameters, values.split("\0"), strict=False):
            if tag == SERVICE_TAG:
                return value
        return None


def _selector(match: Any) -> Selector:
    pairs = tuple(sorted((_text(tag), _text(value)) for tag, value in match.items()))
    if not pairs:
        raise TypeError("a selector without tags")
    exact = sum(value != ANY for _, value in pairs)
    return Selector(pairs, Specificity(len(pairs), exact))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _host(text: str) -> str:
    host = text.lower().removesuffix(".")
    if not is_dns_name(host):
        raise TemplateError(f"host: {text!r} is not a valid DNS name")
    return host


def _port(text: str) -> int:
    port = parsed_port(text)
    if port is None:
        raise TemplateError(f"port: {text!r} is not in range of [1, {PORT_MAX}]")
    return port
