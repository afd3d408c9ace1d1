"""VirtualOutbound: a rule that gives services chosen by their tags a hostname and a port."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zonemesh import names
from zonemesh.labels import SERVICE
from zonemesh.resources import domains
from zonemesh.resources.addresses import is_domain
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.ports import parsed_port
from zonemesh.resources.tags import ANY, is_tag_name, matched_tags
from zonemesh.resources.validation import EMPTY, PORT_MAX, UNDEFINED, Node
from zonemesh.template import Template, TemplateError

_PARAMETER_NAME = re.compile(r"[a-zA-Z0-9]+")
_HOST_STUB = "dummy"
_PORT_STUB = "1"


def _check(outbound: Node, name: str) -> dict[str, Any]:
    outbound.fault_of_name(names.resource_name_fault(name))
    for selector in outbound.nodes("selectors", empty="must have at least one element"):
        matched_tags(selector)
    if (conf := outbound.node("conf", required=True)) is not None:
        parameters = _parameters(conf)
        _validate_host(conf, parameters)
        _validate_port(conf, parameters)
    return outbound.copy()


def _parameters(conf: Node) -> set[str]:
    """The names that templates may use."""
    found: set[str] = set()
    has_service = False
    for node in conf.nodes("parameters"):
        key, name = node.string("tagKey"), node.string("name", required=True)
        has_service |= key == SERVICE
        if key is not None and not is_tag_name(key):
            node.fault("tagKey", "must be a valid tag name")
        if name is None:
            continue
        if not _PARAMETER_NAME.fullmatch(name):
            node.fault("name", "must consist of alphanumeric characters")
        if name in found:
            node.fault("name", f"name {name} is used more than once")
        found.add(name)
    if not has_service:
        conf.fault("parameters", f"must contain a parameter with {SERVICE} as a tagKey")
    return found


def _validate_host(conf: Node, parameters: set[str]) -> None:
    rendered = _rendered(conf, "host", dict.fromkeys(parameters, _HOST_STUB))
    if rendered is not None and not is_domain(rendered):
        conf.fault("host", f'template renders to "{rendered}" which is not a valid DNS name')


def _validate_port(conf: Node, parameters: set[str]) -> None:
    rendered = _rendered(conf, "port", dict.fromkeys(parameters, _PORT_STUB))
    if rendered is not None and parsed_port(rendered) is None:
        conf.fault("port", f'template renders to "{rendered}" which is not a port (1-{PORT_MAX})')


def _rendered(conf: Node, field: str, data: Mapping[str, str]) -> str | None:
    text = conf.string(field)
    if text is None:
        if conf.raw(field) in (None, ""):
            conf.fault(field, EMPTY if conf.has(field) else UNDEFINED)
        return None
    try:
        return Template.parse(text).render(data)
    except TemplateError as error:
        conf.fault(field, f"couldn't parse template: {error}")
        return None


def _warnings(spec: Spec, _name: str) -> list[str]:
    conf = spec["conf"]
    host, port = Template.parse(conf["host"]), Template.parse(conf["port"])
    found = []
    data = {each["name"]: _HOST_STUB for each in conf["parameters"]}
    if (outside := domains.outside(host.render(data))) is not None:
        found.append(f"conf.host: {outside}")
    by_name = {each["name"]: each.get("tagKey") or each["name"] for each in conf["parameters"]}
    read = {by_name[field] for field in host.fields | port.fields}
    services = {selector["match"].get(SERVICE, ANY) for selector in spec["selectors"]}
    if SERVICE not in read and (len(services) > 1 or ANY in services):
        only_one = "of several with the same other tags only one gets this host and port"
        found.append(f"conf: neither host nor port depends on the service; {only_one}")
    return found


KIND = Kind(
    name="VirtualOutbound",
    path="virtual-outbounds",
    short="vo",
    singular="Virtual Outbound",
    plural="Virtual Outbounds",
    scope=Scope.MESH,
    flat=True,
    check=_check,
    warnings=_warnings,
    by_global=True,
    by_zone=False,
    down=True,
)
