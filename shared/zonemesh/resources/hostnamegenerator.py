"""HostnameGenerator: a rule that gives the services that it selects a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from zonemesh import names
from zonemesh.hostnames import SELECTORS
from zonemesh.resources import domains
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import Node, match_labels
from zonemesh.template import Function, Template, TemplateError

_FUNCTIONS: Mapping[str, Function] = MappingProxyType({"label": lambda _: "label"})
_STUB = {
    "Name": "name",
    "DisplayName": "displayname",
    "Namespace": "namespace",
    "Mesh": "mesh",
    "Zone": "zone",
}
# Two services of one mesh that have nothing else in common.
_ONE = dict.fromkeys(_STUB, "one") | {"Mesh": "default"}
_OTHER = dict.fromkeys(_STUB, "other") | {"Mesh": "default"}


def _check(generator: Node, name: str) -> dict[str, Any]:
    generator.fault_of_name(names.resource_name_fault(name))
    _validate_selector(generator)
    _validate_template(generator)
    # Kuma applies a generator to every mesh; this restricts it to one.
    mesh = generator.string("mesh")
    if mesh is not None and (fault := names.mesh_name_fault(mesh)) is not None:
        generator.fault("mesh", fault)
    if (extension := generator.node("extension")) is not None:
        extension.string("type", required=True)
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
        rendered = Template.parse(text).render(_STUB, _FUNCTIONS)
    except TemplateError as error:
        generator.fault("template", f"couldn't parse template: {error}")
        return
    if (fault := names.hostname_fault(rendered)) is not None:
        reason = f'template renders to "{rendered}" which is not a valid DNS name: {fault}'
        generator.fault("template", reason)


def _warnings(spec: Spec, _name: str) -> list[str]:
    return [*_selector_warnings(spec), *_template_warnings(spec["template"])]


def _selector_warnings(spec: Spec) -> Iterator[str]:
    where = f"of mesh {spec['mesh']}" if spec.get("mesh") else "of every mesh"
    for field, kind in SELECTORS.items():
        selector = spec["selector"].get(field)
        if selector is not None and not selector.get("matchLabels"):
            yield f"spec.selector.{field}: no matchLabels, so every {kind} {where} is selected"


def _template_warnings(text: str) -> Iterator[str]:
    template = Template.parse(text)
    one = template.render(_ONE, {"label": lambda _: "one"})
    if one == template.render(_OTHER, {"label": lambda _: "other"}):
        yield "spec.template: the same name for every service; of several in a mesh one gets it"
    if (outside := domains.outside(one)) is not None:
        yield f"spec.template: {outside}"


KIND = Kind(
    name="HostnameGenerator",
    path="hostnamegenerators",
    short="hg",
    singular="Hostname Generator",
    plural="Hostname Generators",
    scope=Scope.GLOBAL,
    flat=False,
    check=_check,
    warnings=_warnings,
    by_global=True,
    by_zone=True,
    up=True,
    down=True,
)
