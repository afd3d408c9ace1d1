"""HostnameGenerator: a rule that gives the services that it selects a name."""

from __future__ import annotations

from typing import Any

from zonemesh import names
from zonemesh.hostnames import SELECTORS
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import Node, Violations, match_labels
from zonemesh.template import Template, TemplateError

_STUB = {
    "Name": "name",
    "DisplayName": "displayname",
    "Namespace": "namespace",
    "Mesh": "mesh",
    "Zone": "zone",
}


def _validate(spec: Spec, name: str) -> dict[str, Any]:
    violations = Violations()
    generator = Node(spec, "spec", violations)
    violations.name(names.resource_name_fault(name))
    _validate_selector(generator)
    _validate_template(generator)
    if (extension := generator.node("extension")) is not None:
        extension.string("type", required=True)
    violations.raise_if_any()
    return generator.copy()


def _validate_selector(generator: Node) -> None:
    selector = generator.node("selector")
    if selector is None and generator.has("selector"):
        return
    if selector is None or sum(map(selector.has, SELECTORS)) != 1:
        kinds = "meshService, meshExternalService, meshMultiZoneService"
        generator.fault("selector", f"exact one selector ({kinds}) must be defined")
    if selector is not None:
        for kind in SELECTORS:
            match_labels(selector, kind)


def _validate_template(generator: Node) -> None:
    """Refuse what no service could get a name from; found out by rendering stand-in values."""
    text = generator.string("template", required=True)
    if text is None:
        return
    try:
        rendered = Template.parse(text).render(_STUB, {"label": lambda _: "label"})
    except TemplateError as error:
        generator.fault("template", f"couldn't parse template: {error}")
        return
    if (fault := names.hostname_fault(rendered)) is not None:
        reason = f'template renders to "{rendered}" which is not a valid DNS name: {fault}'
        generator.fault("template", reason)


KIND = Kind(
    name="HostnameGenerator",
    path="hostnamegenerators",
    short="hg",
    singular="Hostname Generator",
    plural="Hostname Generators",
    scope=Scope.GLOBAL,
    flat=False,
    validate=_validate,
    by_global=True,
    by_zone=True,
    up=True,
    down=True,
)
