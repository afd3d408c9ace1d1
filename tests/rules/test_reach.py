"""What a data plane may reach, as its Dataplane says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.builders import NOW_MS, Chain
from zonemesh.model import Change, Key, Record
from zonemesh.reach import Reaching, reach_of

HERE = Key("default", "west", "", "redis")
POD = Key("default", "west", "shop", "redis")
AWAY = Key("default", "east", "", "redis")
GLOBAL = Key("default", "", "", "redis")
LABELS = {
    HERE.packed: {"app": "redis", "kuma.io/zone": "west"},
    AWAY.packed: {"app": "redis", "kuma.io/zone": "east"},
}


def dataplane(**proxying: Any) -> Record:
    networking = {"address": "10.0.0.1", "transparentProxying": proxying}
    return Record(created_ms=NOW_MS, modified_ms=NOW_MS, spec={"networking": networking})


def refs(*found: Mapping[str, Any]) -> dict[str, Any]:
    return {"reachableBackends": {"refs": [{"kind": "MeshService", **each} for each in found]}}


def allowed(proxying: Mapping[str, Any], key: Key, kind: str, port: int | None = None) -> bool:
    reach = reach_of("west", dataplane(**proxying))
    return reach is None or reach.allows(
        kind, key.packed, lambda _, packed: LABELS.get(packed, {}), port
    )


@pytest.mark.parametrize(
    "proxying, key, expected",
    [
        pytest.param({}, HERE, True, id="nothing said"),
        pytest.param({"reachableBackends": {"refs": []}}, HERE, False, id="no refs"),
        pytest.param({"reachableBackends": {}}, HERE, False, id="refs left out"),
        pytest.param(refs({"name": "redis"}), HERE, True, id="name here"),
        pytest.param(refs({"name": "redis"}), GLOBAL, True, id="name made on global"),
        pytest.param(refs({"name": "redis"}), AWAY, False, id="name in another zone"),
        pytest.param(refs({"name": "web"}), HERE, False, id="another name"),
        pytest.param(refs({"name": "redis"}), POD, False, id="name in a namespace"),
        pytest.param(refs({"name": "redis", "namespace": "shop"}), POD, True, id="its namespace"),
        pytest.param(refs({"name": "redis", "namespace": "x"}), POD, False, id="other namespace"),
        pytest.param(refs({"labels": {"app": "redis"}}), HERE, True, id="labels here"),
        pytest.param(refs({"labels": {"app": "redis"}}), AWAY, True, id="labels anywhere"),
        pytest.param(
            refs({"labels": {"app": "redis", "kuma.io/zone": "east"}}),
            HERE,
            False,
            id="one differs",
        ),
        pytest.param(refs({"name": "web"}, {"name": "redis"}), HERE, True, id="any ref"),
        pytest.param({"reachableServices": ["redis"]}, AWAY, True, id="Kuma 2, any zone"),
        pytest.param({"reachableServices": ["web"]}, HERE, False, id="Kuma 2, another"),
        pytest.param({"reachableServices": []}, HERE, True, id="Kuma 2, an empty list is no limit"),
        pytest.param(
            {"reachableServices": ["redis"], "reachableBackends": {"refs": []}},
            HERE,
            True,
            id="both",
        ),
    ],
)
def test_a_service_is_reached_if_its_kind_and_name_or_labels_are_referred_to(
    proxying: Mapping[str, Any], key: Key, expected: bool
) -> None:
    assert allowed(proxying, key, "MeshService") is expected


def test_a_ref_of_one_kind_says_nothing_of_another() -> None:
    assert not allowed(refs({"name": "redis"}), GLOBAL, "MeshExternalService")


@pytest.mark.parametrize(
    "ref, port, expected",
    [
        ({"name": "redis"}, 80, True),
        ({"name": "redis", "port": 80}, 80, True),
        ({"name": "redis", "port": 80}, 81, False),
        ({"name": "redis", "port": 80}, None, True),
    ],
    ids=["any port", "its port", "another port", "the service as such"],
)
def test_a_ref_with_a_port_opens_that_port_alone(
    ref: Mapping[str, Any], port: int | None, expected: bool
) -> None:
    assert allowed(refs(ref), HERE, "MeshService", port) is expected


def test_the_reach_is_another_object_only_if_it_differs() -> None:
    chain, key = Chain(), Key("default", "west", "", "web-1").packed
    reaching = Reaching("west", chain.registry, key)

    def put(record: Record) -> None:
        chain.commit(Change("Dataplane", key, record.pack()))

    assert reaching() is None
    put(dataplane(**refs({"name": "redis"})))
    first = reaching()
    assert first is not None
    put(
        Record(
            created_ms=NOW_MS,
            modified_ms=NOW_MS + 1,
            spec=dataplane(**refs({"name": "redis"})).spec,
        )
    )
    assert reaching() is first

    put(dataplane(**refs({"name": "web"})))
    assert reaching() not in (None, first)
    put(dataplane())

    assert reaching() is None


def test_a_subscriber_without_a_name_reaches_everything() -> None:
    assert Reaching("west", Chain().registry, None)() is None
