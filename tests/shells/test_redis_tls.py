"""Redis over TLS: own CA, certificates of both sides, and what is said when one is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.chains import chain_of
from tests.redis_deployments import (
    HOST,
    Node,
    answers,
    sentinel,
    server,
    store_at,
    until,
    weaknesses,
)
from tests.redis_server import needs_redis
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.log.redis import RedisStore
from zonemesh.model import START

FIRST = chain_of(1)[0]


@dataclass(frozen=True, slots=True)
class Certificates:
    """A CA's, a server's for 127.0.0.1, and a client's."""

    directory: Path

    @property
    def server_settings(self) -> list[tuple[str, str]]:
        return [
            ("tls-ca-cert-file", str(self.directory / "ca.pem")),
            ("tls-cert-file", str(self.directory / "server.pem")),
            ("tls-key-file", str(self.directory / "server.key")),
            ("tls-auth-clients", "yes"),
            ("tls-replication", "yes"),
        ]

    @property
    def trust(self) -> str:
        return f"ssl_ca_certs={self.directory / 'ca.pem'}"

    @property
    def query(self) -> str:
        identity = f"ssl_certfile={self.directory / 'client.pem'}"
        return f"{self.trust}&{identity}&ssl_keyfile={self.directory / 'client.key'}"


def certified(directory: Path, server_name: str = HOST) -> Certificates:
    directory.mkdir(exist_ok=True)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    for name, identity in (("server", server_name), ("client", "west")):
        issued = ca.issue_cert(identity)
        issued.private_key_pem.write_to_path(str(directory / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(directory / f"{name}.pem"))
    return Certificates(directory)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certified(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def node(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    needs_redis(7)  # the wheel's is built without TLS
    directory = tmp_path_factory.mktemp("tls") / "node"
    with server(directory, *certificates.server_settings, tls=True) as found:
        yield found


async def fault(url: str) -> str:
    """What is said of a server that cannot be used by this URL."""
    async with store_at(url) as store:
        with pytest.raises(UnavailableError) as caught:
            await store.log("global").head()
    return str(caught.value)


async def test_a_log_is_written_and_read_over_tls_with_certificates_of_both_sides(
    node: Node, certificates: Certificates
) -> None:
    async with store_at(f"{node.url(scheme='rediss')}?{certificates.query}") as store:
        await store.commands.call("FLUSHALL")
        log = store.log("global")
        await log.create(FIRST)

        assert [raw.data for raw in await log.read(START, block_s=1)] == [FIRST.data]
        assert list(await store.read_many({"global": START}, block_s=1)) == ["global"]


async def test_what_is_wrong_with_tls_is_said(
    node: Node, certificates: Certificates, tmp_path: Path
) -> None:
    base = node.url(scheme="rediss")
    other = certified(tmp_path / "other")
    foreign_identity = other.query.replace(other.trust, certificates.trust)
    mixed = f"{base}?{certificates.query}".replace(HOST, "localhost", 1)

    assert "ssl_ca_certs" in await fault(base)
    assert "ssl_ca_certs" in await fault(f"{base}?{other.query}")
    assert "ssl_ca_certs" in await fault(mixed)
    assert "ssl_certfile" in await fault(f"{base}?{certificates.trust}")
    assert "ssl_certfile" in await fault(f"{base}?{foreign_identity}")


@pytest.mark.parametrize("scheme, rest", [("rediss", ""), ("rediss+sentinel", "/master")])
def test_a_certificate_that_is_not_there_is_refused_at_start(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url: ssl_ca_certs: there is no file /nowhere"):
        RedisStore(f"{scheme}://localhost{rest}?ssl_ca_certs=/nowhere")


async def test_certificates_may_be_renewed_while_a_process_runs(
    node: Node, certificates: Certificates, tmp_path: Path
) -> None:
    mine = certified(tmp_path / "mine")
    shutil.copy(certificates.directory / "ca.pem", mine.directory / "ca.pem")
    async with store_at(f"{node.url(scheme='rediss')}?{mine.query}") as store:
        with pytest.raises(UnavailableError):
            await store.log("global").head()
        for name in ("client.pem", "client.key"):
            shutil.copy(certificates.directory / name, mine.directory / name)

        await store.log("global").head()


async def test_clear_text_over_a_network_is_a_weakness_and_tls_is_none(
    node: Node, certificates: Certificates
) -> None:
    found = await weaknesses(f"{node.url(scheme='rediss')}?{certificates.query}")

    assert "clear_text" not in {weakness.code for weakness in found}


@pytest.mark.timeout(90)
async def test_a_failover_is_followed_with_sentinels_and_servers_that_speak_tls_only(
    certificates: Certificates, tmp_path: Path
) -> None:
    needs_redis(7)
    settings = certificates.server_settings
    with ExitStack() as stack:
        master = stack.enter_context(server(tmp_path / "master", *settings, tls=True))
        following = (*settings, ("replicaof", f"{HOST} {master.port}"))
        replica = stack.enter_context(server(tmp_path / "replica", *following, tls=True))
        async with store_at(f"{master.url(scheme='rediss')}?{certificates.query}") as direct:
            await until(answers(direct, b"state=online", "INFO", "replication"))
        watching = (
            ("sentinel", f"monitor master {HOST} {master.port} 1"),
            ("sentinel", "down-after-milliseconds master 2000"),
        )
        one = stack.enter_context(sentinel(tmp_path / "sentinel", *settings, *watching, tls=True))
        url = f"rediss+sentinel://{one.address}/master?{certificates.query}"
        async with (
            store_at(url) as store,
            store_at(f"rediss://{one.address}?{certificates.query}") as watch,
        ):
            await until(
                answers(watch, str(replica.port).encode(), "SENTINEL", "REPLICAS", "master")
            )
            await store.log("global").create(FIRST)
            await store.commands.call("WAIT", "1", "5000")
            master.kill()
            await until(answers(store, str(replica.port).encode(), "CONFIG", "GET", "tls-port"))

            assert len(await store.log("global").read(START)) == 1
            assert store.commands.private
