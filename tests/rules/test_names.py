"""What may be a name, and Kuma's hashed names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonemesh import names

DNS_TEXT = st.text("ab1-._A", max_size=70)


@pytest.mark.parametrize(
    "mesh, display_name, zone, namespace, expected",
    [
        ("default", "redis-zone-1", "zone-1", "", "redis-zone-1-2v6wfvvcvbc9f55d"),
        ("default", "redis-zone-2", "zone-2", "", "redis-zone-2-ff29vc4685c6f594"),
        ("default", "redis", "zone-1", "", "redis-c9d954w84b8wf77z"),
        ("default", "default-timeout-global", "", "", "default-timeout-global-54dbd4c66zwbcf9c"),
        ("", "foo", "", "", "foo-zxw6c95d42zfz9cc"),
        ("", "foo", "zone-1", "custom-ns", "foo-696vzv497z4cv4f4"),
    ],
)
def test_hashed_names_are_those_of_kuma(
    mesh: str, display_name: str, zone: str, namespace: str, expected: str
) -> None:
    assert names.hashed_name(mesh, display_name, zone, namespace) == expected


def test_a_hashed_name_stays_a_resource_name_whatever_its_length() -> None:
    name = names.hashed_name("default", "x" * names.NAME_MAX, "west", "")

    assert len(name) == names.NAME_MAX
    assert names.is_resource_name(name)


@given(st.text("ab-.1", min_size=1, max_size=names.NAME_MAX), st.sampled_from(["", "west"]))
def test_a_hashed_name_splits_into_its_display_name_and_hash(display: str, zone: str) -> None:
    name = names.hashed_name("default", display, zone, "")

    split = names.split_hashed(name)

    assert split is not None
    assert split[0] == display[:236]
    assert name == "-".join(split)


@pytest.mark.parametrize(
    "name",
    [
        "redis",
        "-c9d954w84b8wf77z",  # nothing before the hash
        "redis-c9d954w84b8wf77",  # 15 characters
        "redis-c9d954w84b8wf77a",  # the alphabet has no vowels
        "redis-c9d954w84b8wf77t",  # a letter of the alphabet that no hex digit becomes
        "redis-c9d954w84b8wf77z\n",
    ],
)
def test_other_names_do_not_split(name: str) -> None:
    assert names.split_hashed(name) is None


@pytest.mark.parametrize("name", ["redis", "r", "a-b", "a" * 63, "a1"])
def test_dns_labels(name: str) -> None:
    assert names.is_dns_label(name)


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "a.b", "A", "a_b", "a" * 64, "a\n", "é"])
def test_what_is_no_dns_label(name: str) -> None:
    assert not names.is_dns_label(name)
    assert names.dns_label_fault(name) is not None


@pytest.mark.parametrize(
    "name", ["redis.svc.mesh.local", "1.a", "a" * 63 + ".b", ".".join(["a" * 50] * 4), "a--b"]
)
def test_hostnames(name: str) -> None:
    assert names.is_hostname(name)
    assert names.hostname_fault(name) is None


@pytest.mark.parametrize(
    "name, reason",
    [
        ("", "must consist of"),
        ("a..b", "must consist of"),
        (".a", "must consist of"),
        ("a.", "must consist of"),
        ("a-.b", "must consist of"),
        ("a.-b", "must consist of"),
        ("A.b", "must consist of"),
        ("a_b", "must consist of"),
        ("a.b\n", "must consist of"),
        ("a" * 64 + ".b", "no more than 63"),
        (".".join(["a" * 63] * 4), "no more than 253"),
    ],
)
def test_what_is_no_hostname(name: str, reason: str) -> None:
    fault = names.hostname_fault(name)

    assert not names.is_hostname(name)
    assert fault is not None
    assert reason in fault


def test_resource_names_have_labels_of_any_length() -> None:
    assert names.is_resource_name("a" * names.NAME_MAX)
    assert not names.is_resource_name("a" * (names.NAME_MAX + 1))


@pytest.mark.parametrize("name", ["Default", "", "a/b", "a" * 64, "a\n"])
def test_what_is_no_mesh_name(name: str) -> None:
    assert not names.is_mesh_name(name)
    assert names.mesh_name_fault(name) is not None


def test_meshes_of_kuma_2_keep_their_names() -> None:
    assert all(map(names.is_mesh_name, ("default", "1", "a_b", "-x-", "a.b")))


@given(DNS_TEXT)
def test_a_fault_is_named_exactly_where_a_name_is_refused(name: str) -> None:
    assert (names.hostname_fault(name) is None) == names.is_hostname(name)
    assert (names.dns_label_fault(name) is None) == names.is_dns_label(name)
    assert (names.mesh_name_fault(name) is None) == names.is_mesh_name(name)
    assert (names.resource_name_fault(name) is None) == names.is_resource_name(name)


@given(DNS_TEXT)
def test_every_kind_of_name_is_a_narrower_one_of_the_wider(name: str) -> None:
    assert not names.is_dns_label(name) or names.is_hostname(name)
    assert not names.is_hostname(name) or names.is_resource_name(name)
