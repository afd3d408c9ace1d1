"""Generators that come, change and go, in a zone's map."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.maps import (
    Counting,
    View,
    binding,
    generator,
    key_of,
    removal,
    service,
    started,
)
from zonemesh.model import Change
from zonemesh.vipmap import Delta, VipMap


def test_a_generator_of_one_mesh_names_services_of_that_mesh_alone() -> None:
    view = started()
    shop = service("web")._replace(key=key_of("web", mesh="shop"))
    address = binding("web", 2)._replace(key=key_of("web", mesh="shop"))
    view.own.commit(service("web"), binding("web", 1), shop, address)
    view.own.commit(generator("only", "{{ .DisplayName }}.only", zone="west", mesh="shop"))
    view.flush()

    assert "web.only" in view.map.published["shop"]
    assert view.names == {"web.svc.mesh.local": 1}

    view.own.commit(generator("only", "{{ .DisplayName }}.only", zone="west"))
    view.flush()
    assert view.names == {"web.only": 1, "web.svc.mesh.local": 1}


def test_a_mesh_that_appears_later_has_only_the_generators_that_are_for_it() -> None:
    view = started()
    view.own.commit(generator("only", "{{ .DisplayName }}.only", zone="west", mesh="shop"))
    view.flush()

    for mesh, at in (("shop", 1), ("other", 2)):
        key = key_of("web", mesh=mesh)
        view.own.commit(service("web")._replace(key=key), binding("web", at)._replace(key=key))
    view.flush()

    assert view.map.published["shop"].keys() == {"web.only", "web.svc.mesh.local"}
    assert view.map.published["other"].keys() == {"web.svc.mesh.local"}


def many(count: int, made: type[VipMap] = VipMap) -> View:
    view = started(made=made)
    changes = []
    for number in range(count):
        changes += [service(f"s{number}"), binding(f"s{number}", number)]
    view.own.commit(*changes, bytes_max=1 << 30)
    view.flush()
    return view


def test_another_generator_is_tried_on_so_many_services_in_each_part_as_are_allowed() -> None:
    view = many(20_000, Counting)
    assert isinstance(view.map, Counting)
    view.own.commit(generator("more", "{{ .DisplayName }}.more", zone="west"))
    assert view.map.pending >= 20_000
    deltas: defaultdict[str, Delta] = defaultdict(Delta)

    parts, more = 0, True
    while more:
        view.map.read.clear()
        more = view.map.flush_part(deltas, 1_000)
        parts += 1
        assert len(view.map.read) <= 1_000
        assert len(deltas["default"].put) <= 1_000 * parts

    assert parts == 20
    assert len(deltas["default"].put) == 20_000
    assert len(view.names) == 40_000


@pytest.mark.parametrize(
    "meanwhile, names",
    [
        pytest.param(service("later"), {"later.more"}, id="a new service"),
        pytest.param(removal(service("s3")), set(), id="a service goes"),
        pytest.param(service("s3", tier="x"), {"s3.more"}, id="a service changes"),
        pytest.param(binding("s3", 3, order=5), {"s3.more"}, id="a rank changes"),
        pytest.param(binding("s3", 33), {"s3.more"}, id="an address changes"),
        pytest.param(
            generator("more", "{{ .DisplayName }}.other", zone="west"),
            {"s3.other"},
            id="the generator changes again",
        ),
        pytest.param(
            removal(generator("more", "", zone="west")), set(), id="the generator goes again"
        ),
    ],
)
@pytest.mark.parametrize("done", [0, 4, 9])
def test_what_changes_while_services_are_named_anew_ends_as_if_all_were_done_at_once(
    meanwhile: Change, names: set[str], done: int
) -> None:
    view = many(10)
    view.own.commit(binding("later", 99), generator("more", "{{ .DisplayName }}.more", zone="west"))
    deltas: defaultdict[str, Delta] = defaultdict(Delta)
    if done:
        view.map.flush_part(deltas, done)

    view.own.commit(meanwhile)
    while view.map.flush_part(deltas, 2):
        pass

    scratch = view.from_scratch()
    assert view.map.published == scratch.published
    assert view.map.digest("default") == scratch.digest("default")
    assert names <= view.map.published["default"].keys()
