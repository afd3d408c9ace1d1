"""A zone loses its own log: it takes up again what global holds of it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.e2e.mesh import PLANES, Mesh, at_home, elsewhere, eventually, in_east, watching


@pytest.mark.timeout(90)
def test_a_zone_whose_data_is_gone_comes_back_with_the_same_addresses(mesh: Mesh) -> None:
    mesh.start_all()
    addresses = mesh.registered("one", "two", "three")

    with watching(mesh, in_east(addresses)):
        mesh["west"].kill()
        mesh.forget("west")
        mesh["west"].start()
        mesh.wait_ready("west")
        addresses |= {"new": _registered(mesh, "new")}

    for plane in PLANES:
        eventually(partial(mesh.holds, plane, addresses), 8, mesh, plane)
    for service, address in addresses.items():
        assert mesh.resolves("west", at_home(service)) == address
    assert len(set(addresses.values())) == len(addresses)


def _registered(mesh: Mesh, service: str) -> str:
    eventually(lambda: mesh.registers("west", service), 15, mesh, "west")
    return mesh.resolves("east", elsewhere(service), timeout_s=20)


@pytest.mark.timeout(60)
def test_a_global_whose_data_is_gone_reads_the_log_again(mesh: Mesh) -> None:
    mesh.start_all()
    addresses = mesh.registered("one", "two")

    for name in ("g1", "g2"):
        mesh[name].kill()
        mesh.forget(name)
        mesh.start(name)

    for plane in PLANES:
        eventually(partial(mesh.holds, plane, addresses), 8, mesh, plane)
    mesh.registered("three")
