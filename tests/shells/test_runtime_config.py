"""Configuration: everything that is wrong is said at once, and what is right is typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonecp.config import ZoneConfig
from zonemesh.errors import ConfigError
from zonemesh.runtime import config
from zonemesh.runtime.config import setting
from zonemesh.runtime.values import UnfitError, format_duration, mask_url, parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    url: str = "redis://127.0.0.1/0"
    key_prefix: str = "zonemesh"
    password: str = setting("", secret=True)
    block_s: float = setting(5.0, minimum=0.001, maximum=60)
    lease_s: float = 2.0
    shards: int = setting(1, minimum=1, maximum=16)

    def __post_init__(self) -> None:
        if self.lease_s > self.block_s:
            raise ConfigError([f"lease_s: {self.lease_s} is more than block"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    zone: str
    mode: Literal["global", "zone"] = "zone"
    verbose: bool = False
    ratio: float = 0.5
    cidr: tuple[str, ...] = ("241.0.0.0/8",)
    data_dir: Path | None = None
    dns_cache_s: float = setting(10.0, key="dnsCacheTTL", kuma_env=("KUMA_GENERAL_DNS_CACHE_TTL",))
    redis: Redis = field(default_factory=Redis)


IGNORED = {
    "dpServer": "agents use the feed",
    "store.type": "the log is the store",
    "redis.cache": "nothing is cached",
}


def load(document: dict[str, Any], **environ: str) -> Config:
    loaded, _ = config.load(Config, {"zone": "west"} | document, environ, ignored=IGNORED)
    return loaded


def faults(document: dict[str, Any], **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(Config, document, environ, ignored=IGNORED)
    return list(caught.value.faults)


def test_defaults_are_what_the_classes_say() -> None:
    assert load({}) == Config(zone="west")


def test_values_are_converted_by_their_fields_types() -> None:
    loaded = load(
        {
            "mode": "global",
            "verbose": True,
            "ratio": 1,
            "cidr": ["1.0.0.0/8", "2.0.0.0/8"],
            "dataDir": "/var/lib/x",
            "dnsCacheTTL": "1m30s",
            "redis": {"keyPrefix": "zm", "block": "250ms", "lease": 0, "shards": 3},
        }
    )

    assert loaded == Config(
        zone="west",
        mode="global",
        verbose=True,
        ratio=1.0,
        cidr=("1.0.0.0/8", "2.0.0.0/8"),
        data_dir=Path("/var/lib/x"),
        dns_cache_s=90.0,
        redis=Redis(key_prefix="zm", block_s=0.25, lease_s=0.0, shards=3),
    )


def test_the_environment_wins_and_kumas_spelling_yields() -> None:
    loaded = load(
        {"zone": "file", "redis": {"shards": 2}},
        ZONEMESH_ZONE="env",
        ZONEMESH_REDIS_KEY_PREFIX="ours",
        KUMA_REDIS_KEY_PREFIX="kumas",
        KUMA_REDIS_SHARDS="4",
        KUMA_GENERAL_DNS_CACHE_TTL="5s",
        ZONEMESH_VERBOSE="1",
        ZONEMESH_RATIO=".25",
        ZONEMESH_CIDR="1.0.0.0/8, 2.0.0.0/8",
        ZONEMESH_DATA_DIR="",
    )

    assert (loaded.zone, loaded.redis.key_prefix, loaded.redis.shards) == ("env", "ours", 4)
    assert (loaded.dns_cache_s, loaded.verbose, loaded.ratio) == (5.0, True, 0.25)
    assert (loaded.cidr, loaded.data_dir) == (("1.0.0.0/8", "2.0.0.0/8"), None)


def test_a_key_without_a_value_is_absent() -> None:
    assert load({"redis": None, "mode": None, "dataDir": None}) == Config(zone="west")


def test_all_faults_are_reported_together() -> None:
    found = faults(
        {
            "mode": "standalone",
            "verbose": "yes",
            "ratio": "x",
            "cidr": [1],
            "redis": {"urll": "x", "block": 5, "shards": True, "cach": 1},
            "redi": {},
        },
        ZONEMESH_REDIS_SHARD="1",
        ZONEMESH_REDIS_LEASE="soon",
    )

    assert found == [
        "redi: unknown key; did you mean redis?",
        "zone: must be given (or ZONEMESH_ZONE)",
        "mode: 'standalone' is none of global, zone",
        "verbose: 'yes' is not true or false",
        "ratio: 'x' is not a number",
        "cidr: [1] is not a list of strings",
        "redis.urll: unknown key; did you mean redis.url?",
        "redis.cach: unknown key",
        "redis.block: 5 has no unit; write a duration such as 5s, 250ms or 1h30m",
        "ZONEMESH_REDIS_LEASE: 'soon' is not a duration such as 5s, 250ms or 1h30m",
        "redis.shards: True is not an integer",
        "ZONEMESH_REDIS_SHARD: unknown variable; did you mean ZONEMESH_REDIS_SHARDS?",
    ]


def test_ranges_and_relations_are_checked() -> None:
    assert faults({"zone": "w", "redis": {"shards": 17, "block": "2m"}}) == [
        "redis.block: 120 is more than 60",
        "redis.shards: 17 is more than 16",
    ]
    assert faults({"zone": "w", "redis": {"shards": 0}}) == ["redis.shards: 0 is less than 1"]
    assert faults({"zone": "w", "redis": {"lease": "9s"}}) == [
        "redis.lease: 9.0 is more than block"
    ]


def test_a_section_must_be_one() -> None:
    assert faults({"zone": "w", "redis": "x"}) == ["redis: a section of keys is expected, not 'x'"]


def test_a_wrong_secret_is_not_repeated() -> None:
    assert faults({"zone": "w", "redis": {"password": 12345}}) == ["redis.password: *****"]


def test_kumas_other_keys_are_a_warning_each() -> None:
    loaded, warnings = config.load(
        Config,
        {"zone": "west", "dpServer": {"a": 1, "b": 2}, "store": {"type": "memory"}},
        {"KUMA_DP_SERVER_HDS_ENABLED": "true", "ZONEMESH_REDIS_CACHE": "1", "KUMA_OTHER": "x"},
        ignored=IGNORED,
    )

    assert loaded == Config(zone="west")
    assert warnings == (
        "dpServer: ignored: agents use the feed",
        "store.type: ignored: the log is the store",
        "KUMA_DP_SERVER_HDS_ENABLED: ignored: agents use the feed",
        "ZONEMESH_REDIS_CACHE: ignored: nothing is cached",
    )


def test_an_unknown_key_beside_an_ignored_one_is_a_fault() -> None:
    assert faults({"zone": "w", "store": {"type": "x", "typo": 1}}) == ["store.typo: unknown key"]


def test_variables_of_others_are_left_alone() -> None:
    loaded = load(
        {},
        ZONEMESH_REDIS_SERVER="/usr/bin/redis-server",
        ZONEMESH_GLOBAL_SERVICE_HOST="10.0.0.1",
        ZONEMESH_GLOBAL_SERVICE_PORT_REST="5681",
        ZONEMESH_GLOBAL_PORT="tcp://10.0.0.1:5681",
        ZONEMESH_GLOBAL_PORT_5681_TCP_ADDR="10.0.0.1",
        KUMA_CONTROL_PLANE_SERVICE_HOST="10.0.0.2",
        PATH="/bin",
    )

    assert loaded == Config(zone="west")


def test_dump_is_what_load_read_without_secrets() -> None:
    loaded = load(
        {
            "cidr": "1.0.0.0/8",
            "dnsCacheTTL": "1h",
            "redis": {"url": "redis://u:p@h:1/0", "password": "geheim"},
        }
    )

    dumped = config.dump(loaded)

    assert dumped == {
        "zone": "west",
        "mode": "zone",
        "verbose": False,
        "ratio": 0.5,
        "cidr": ["1.0.0.0/8"],
        "dataDir": None,
        "dnsCacheTTL": "1h",
        "redis": {
            "url": "redis://u:*****@h:1/0",
            "keyPrefix": "zonemesh",
            "password": "*****",
            "block": "5s",
            "lease": "2s",
            "shards": 1,
        },
    }


def test_dump_loads_again() -> None:
    loaded = load({"ratio": 0.125, "redis": {"block": "2.5s"}})

    again, _ = config.load(Config, config.dump(loaded), {})

    assert again == loaded


@pytest.mark.parametrize(
    "url, masked",
    [
        ("redis://:pw@h/0", "redis://:*****@h/0"),
        ("redis://u:p@ss:w@h/0", "redis://u:*****@h/0"),
        ("redis+sentinel://u:p@a:1,b:2/m", "redis+sentinel://u:*****@a:1,b:2/m"),
        ("redis://h/0?password=x&db=1", "redis://h/0?password=*****&db=1"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("sqlite:///var/lib/x.db", "sqlite:///var/lib/x.db"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    "text, seconds",
    [("5s", 5.0), ("250ms", 0.25), ("1h30m", 5400.0), ("1.5h", 5400.0), ("100us", 1e-4), ("0", 0)],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5d", "-5s", "5s5", "1h 30m", "٥s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UnfitError):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_durations_come_back_from_their_text(micros: int) -> None:
    assert parse_duration(format_duration(micros / 1e6)) == pytest.approx(micros / 1e6, abs=5e-7)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("a: [", "expected the node content"),
        ("a: 1\na: 2", "key 'a' twice"),
        ("b: {c: 1, c: 2}", "key 'c' twice"),
        ("- a", "not a mapping of keys"),
        ("\x00", "not allowed"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_named(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "zone.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=fault) as caught:
        config.read_file(path)

    assert str(path) in str(caught.value)


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "full.yaml").write_text("zone: west\nredis: {block: 5s}\n")

    assert config.read_file(tmp_path / "empty.yaml") == {}
    assert config.read_file(tmp_path / "full.yaml") == {"zone": "west", "redis": {"block": "5s"}}
    with pytest.raises(ConfigError, match="No such file"):
        config.read_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "document, warnings",
    [
        (
            {"redis": {"url": "redis://g"}, "dnsServer": {"CIDR": "240.0.0.0/8", "domain": "m"}},
            ["dnsServer.CIDR", "dnsServer.domain"],
        ),
        ({"redis": {"url": "redis://g"}, "dnsServer": {"domain": "mesh"}}, []),
        ({"dnsServer": {"domain": "m", "serviceVipEnabled": False}}, []),
    ],
    ids=["follows global", "as by default", "alone"],
)
def test_a_zone_that_follows_global_warns_of_legacy_names_that_it_makes_otherwise(
    document: dict[str, Any], warnings: list[str]
) -> None:
    _, found = config.load(ZoneConfig, document, {}, ignored={})

    holds = "ignored: global's dnsServer holds in every zone that follows it"
    assert list(found) == [f"{key}: {holds}" for key in warnings]
