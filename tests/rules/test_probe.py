"""Verdicts on a workload from probes, and what a Dataplane says of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonecp.dataplane.probe import Health, Probe, drained, probes, step, with_states
from zonemesh.errors import ConfigError


def probe(healthy: int = 1, unhealthy: int = 1) -> Probe:
    return Probe(
        inbound=0,
        name="main",
        address="127.0.0.1",
        port=80,
        healthy_threshold=healthy,
        unhealthy_threshold=unhealthy,
    )


def verdicts(of: Probe, results: str) -> str:
    """`+` passed, `-` failed; verdicts as R, N and ? for none yet."""
    health, said = Health(), ""
    for result in results:
        health = step(of, health, passed=result == "+")
        said += "?" if health.ready is None else "R" if health.ready else "N"
    return said


@pytest.mark.parametrize(
    "healthy,unhealthy,results,expected",
    [
        (1, 1, "+-+", "RNR"),
        (2, 3, "+++", "?RR"),
        (2, 3, "---", "??N"),
        (2, 3, "++--+---", "?RRRRRRN"),
        (2, 3, "---+-++", "??NNNNR"),
        (2, 3, "+-+-+-", "??????"),
    ],
)
def test_a_verdict_turns_after_as_many_like_results_as_the_threshold_says(
    healthy: int, unhealthy: int, results: str, expected: str
) -> None:
    assert verdicts(probe(healthy, unhealthy), results) == expected


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_never_turns_on_fewer_results(results: str, healthy: int, unhealthy: int) -> None:
    said = verdicts(probe(healthy, unhealthy), results)

    for at in range(len(said)):
        if said[at] == "R" and (at == 0 or said[at - 1] != "R"):
            assert results[: at + 1].endswith("+" * healthy)
        if said[at] == "N" and (at == 0 or said[at - 1] != "N"):
            assert results[: at + 1].endswith("-" * unhealthy)


def dataplane(*inbounds: dict[str, Any], address: str = "10.0.0.1") -> dict[str, Any]:
    return {"name": "a", "networking": {"address": address, "inbound": list(inbounds)}}


def test_what_is_left_out_is_kumas_default() -> None:
    (found,) = probes(dataplane({"port": 80}, {"port": 81, "serviceProbe": {"tcp": {}}}))

    assert found == Probe(inbound=1, name="81", address="10.0.0.1", port=81)
    assert (found.interval_s, found.timeout_s) == (1.0, 2.0)
    assert (found.healthy_threshold, found.unhealthy_threshold) == (1, 1)


def test_everything_can_be_said() -> None:
    settings = {
        "interval": "250ms",
        "timeout": "0.1s",
        "healthyThreshold": 2,
        "unhealthyThreshold": 3,
        "http": {"path": "/health"},
    }

    (found,) = probes(dataplane({"port": 80, "name": "main", "serviceProbe": settings}))

    assert (found.name, found.path, found.interval_s, found.timeout_s) == (
        "main", "/health", 0.25, 0.1,
    )  # fmt: skip
    assert (found.healthy_threshold, found.unhealthy_threshold) == (2, 3)


@pytest.mark.parametrize(
    "inbound,where",
    [
        ({"port": 80}, ("10.0.0.1", 80)),
        ({"port": 80, "address": "10.0.0.2"}, ("10.0.0.2", 80)),
        ({"port": 80, "servicePort": 8080}, ("127.0.0.1", 8080)),
        ({"port": 80, "serviceAddress": "127.0.0.2"}, ("127.0.0.2", 80)),
    ],
)
def test_a_workload_is_asked_where_it_listens(
    inbound: dict[str, Any], where: tuple[str, int]
) -> None:
    (found,) = probes(dataplane({**inbound, "serviceProbe": {}}))

    assert (found.address, found.port) == where


def test_an_ignored_inbound_is_not_probed() -> None:
    assert probes(dataplane({"port": 80, "state": "Ignored", "serviceProbe": {}})) == ()


@pytest.mark.parametrize(
    "settings,fault",
    [
        ({"interval": "fast"}, ".interval: 'fast' is not a duration"),
        ({"interval": "0s"}, ".interval: 0s is not in 10ms..1h"),
        ({"timeout": "2h"}, ".timeout: 2h is not in 10ms..1h"),
        ({"healthyThreshold": 0}, ".healthyThreshold: 0 is not in 1..1000"),
        ({"unhealthyThreshold": True}, ".unhealthyThreshold: True is not in 1..1000"),
        ({"http": {"path": "health"}}, ".http.path: must begin with /"),
        ({"http": "x"}, ".http.path: must begin with /"),
        ({"tcp": {}, "http": {}}, ": either tcp or http"),
        ({"grpc": {}}, ".grpc: unknown; there are interval, timeout,"),
        ([], ": a section of keys is expected"),
    ],
)
def test_a_fault_is_named_by_its_path(settings: Any, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        probes(dataplane({"port": 80}, {"port": 81, "serviceProbe": settings}))

    assert caught.value.faults[0].startswith(f"networking.inbound[1].serviceProbe{fault}")


def test_verdicts_become_states_and_the_older_spelling_agrees() -> None:
    document = dataplane(
        {"port": 80}, {"port": 81, "health": {"ready": False}}, {"port": 82, "state": "NotReady"}
    )

    found = with_states(document, {1: True, 2: True})["networking"]["inbound"]

    assert found == [
        {"port": 80},
        {"port": 81, "health": {"ready": True}, "state": "Ready"},
        {"port": 82, "state": "Ready"},
    ]
    assert document["networking"]["inbound"][2]["state"] == "NotReady"


def test_a_drained_dataplane_takes_nothing_and_ignores_what_it_ignored() -> None:
    document = dataplane({"port": 80}, {"port": 81, "state": "Ignored"})

    found = drained(document)

    assert found is not None
    assert [inbound["state"] for inbound in found["networking"]["inbound"]] == [
        "NotReady", "Ignored",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [{}, {"networking": None}, {"networking": {"inbound": [3]}}, {"networking": {"inbound": 3}}],
)
def test_what_is_no_dataplane_is_left_to_the_zone(document: dict[str, Any]) -> None:
    assert probes(document) == ()
    assert with_states(document, {}) == document
