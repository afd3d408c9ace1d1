"""The sample of ACL users: each may do what its control plane needs, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.chains import chain_of, snapshot_of
from tests.redis_deployments import USERS, Node, server, store_at, users_file, weaknesses
from tests.redis_server import needs_redis
from zonemesh.errors import FateUnknownError, UnavailableError
from zonemesh.log.keys import Keys
from zonemesh.log.port import Lease
from zonemesh.log.redis import RedisStore
from zonemesh.log.redisrights import DANGEROUS, GLOBAL, Command, Role, forbidden, needed
from zonemesh.model import START, Position
from zonemesh.travel import GLOBAL_LOG, copy_log, own_log, up_log

ROLES = (
    ("global", GLOBAL),
    ("west", Role("west")),
    ("east", Role("east")),
    ("west-own", Role("west", own_log=True)),
)
ASKED = {"echo", "info", "acl whoami", "select", "eval"}
"""By connecting, and by the check at start."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    needs_redis(7)
    directory = tmp_path_factory.mktemp("users")
    with server(directory / "node", ("aclfile", str(users_file(directory)))) as found:
        yield found


async def refused(store: RedisStore, command: Command) -> bool:
    """Whether the server's answer to the very command is that this user may not."""
    try:
        await store.commands.call(*command)
    except UnavailableError as error:
        return "NOPERM" in str(error)
    return False


@pytest.mark.parametrize("user, role", ROLES)
async def test_a_control_planes_user_is_allowed_each_command_that_it_needs(
    node: Node, user: str, role: Role
) -> None:
    async with store_at(node.url(user)) as store:
        denied = [one for one in needed(Keys(), role) if await refused(store, one)]
    async with store_at(node.url("admin")) as admin:
        await admin.commands.call("FLUSHALL")

    assert denied == []


@pytest.mark.parametrize("user, role", ROLES)
async def test_a_control_planes_user_is_refused_each_command_that_would_harm_others(
    node: Node, user: str, role: Role
) -> None:
    async with store_at(node.url(user)) as store:
        allowed = [one for one in forbidden(Keys(), role) if not await refused(store, one)]

    assert allowed == []


@pytest.mark.parametrize("user, role", ROLES)
def test_a_control_planes_user_is_granted_no_command_that_nothing_needs(
    user: str, role: Role
) -> None:
    lines = USERS.read_text().splitlines()
    line = next(each for each in lines if each.startswith(f"user {user} "))
    granted = {each.replace("|", " ") for each in re.findall(r"\+([a-z|]+)", line)}
    words = (one[: 2 if one[0] == "MEMORY" else 1] for one in needed(Keys(), role))
    used = {" ".join(each).lower() for each in words}
    waiting = set() if role.own_log else {"wait"}  # redis.waitReplicas

    assert granted == used | ASKED | waiting


@pytest.mark.parametrize("user, role", ROLES)
async def test_the_check_at_start_finds_nothing_wrong_with_these_users(
    node: Node, user: str, role: Role
) -> None:
    found = await weaknesses(node.url(user), role)

    assert [weakness.code for weakness in found] == ["config_refused"]


async def test_the_check_names_users_that_may_too_much_or_too_little(node: Node) -> None:
    found = {
        (user, str(role)): {one.code for one in await weaknesses(node.url(user), role)}
        for user, role in (
            ("admin", GLOBAL),
            ("global", Role("west")),
            ("west", Role("east")),
            ("west", Role("west", own_log=True)),
            ("west-own", Role("west")),
            ("global", Role("west", own_log=True)),
        )
    }

    assert found == {
        ("admin", "global"): {"rights_too_wide"},
        ("global", "zone west"): {"rights_too_narrow", "rights_too_wide", "config_refused"},
        ("west", "zone east"): {"rights_too_narrow", "config_refused"},
        ("west", "the own log of zone west"): {"rights_too_narrow", "config_refused"},
        ("west-own", "zone west"): {"rights_too_narrow", "config_refused"},
        ("global", "the own log of zone west"): {"rights_too_wide", "config_refused"},
    }


async def test_nobody_comes_in_without_a_user(node: Node) -> None:
    store = RedisStore(node.url())

    with pytest.raises(UnavailableError, match=r"wants a password: give one in redis\.url"):
        await store.log(GLOBAL_LOG).head()
    await store.close()


@pytest.mark.parametrize("user", ["global", "west", "west-own", "replica", "sentinel"])
async def test_only_the_administrator_may_do_what_endangers_the_server(
    node: Node, user: str
) -> None:
    async with store_at(node.url(user)) as store:
        harmless_to_sentinel = [
            command for command in DANGEROUS
            if not (user == "sentinel" and command[0] in ("REPLICAOF", "CLIENT", "SCRIPT"))
        ]  # fmt: skip
        allowed = [command for command in harmless_to_sentinel if not await refused(store, command)]

    assert allowed == []


async def test_a_zone_and_global_work_together_with_these_users(node: Node) -> None:
    chain = chain_of(4)
    lease = Lease(writer="writer", url="http://g:5681")
    async with store_at(node.url("global")) as of_global, store_at(node.url("west")) as of_west:
        shared = of_global.log(GLOBAL_LOG)
        assert await shared.acquire(lease)
        await shared.create(chain[0])
        await shared.append(chain[1])
        await shared.put_snapshot(snapshot_of(chain[1]), [b"chunk"])
        await of_global.present(GLOBAL_LOG, "writer", b"about")
        assert await of_global.replicas(GLOBAL_LOG) == {"writer": b"about"}

        await of_west.announce("west")
        up = of_west.log(up_log("west"))
        await up.create(chain[0], owner="uid")
        for sealed in chain[1:]:
            await up.append(sealed)
            await up.put_snapshot(snapshot_of(sealed), [b"chunk"])
        assert await up.load_snapshot(snapshot_of(chain[3])) == [b"chunk"]
        await up.trim(Position(1, 1))
        await of_west.commands.call("DEL", Keys().of(up_log("west")).head)
        assert await up.repair(chain[3], owner="uid")
        offered = of_west.log(copy_log("west"))
        await offered.put_snapshot(snapshot_of(chain[1]), [b"copy"])
        seen = of_west.log(GLOBAL_LOG)
        assert len(await seen.read(START, block_s=0.01)) == 2
        assert await seen.head() is not None
        assert await seen.load_snapshot(snapshot_of(chain[1])) == [b"chunk"]

        assert await of_global.zones() == {"west"}
        copy = of_global.log(copy_log("west"))
        assert await copy.load_snapshot(snapshot_of(chain[1])) == [b"copy"]
        read = await of_global.read_many({up_log("west"): START}, block_s=0.01)
        assert len(read[up_log("west")]) == 3
        assert await of_global.log(up_log("west")).trim(Position(1, 2)) == 1
        await shared.resign(chain[2], lease)
        assert await shared.holder() is None

        for foreign in (of_west.log(GLOBAL_LOG), of_west.log(up_log("east"))):
            with pytest.raises(FateUnknownError, match="ACL"):
                await foreign.append(chain[3])
            with pytest.raises(FateUnknownError, match="ACL"):
                await foreign.create(chain[0])
        with pytest.raises(UnavailableError, match="ACL"):
            await of_west.log(up_log("east")).head()

        await of_global.forget("west")
        assert await of_global.zones() == frozenset()
        assert await of_global.log(up_log("west")).head() is None


async def test_a_zones_control_planes_share_its_own_log_with_a_user_that_has_nothing_else(
    node: Node,
) -> None:
    chain = chain_of(5)
    lease = Lease(writer="writer", url="http://w:5681")
    async with store_at(node.url("west-own")) as store, store_at(node.url("global")) as of_global:
        log = store.log(own_log("west"))
        assert await log.acquire(lease)
        await log.create(chain[0], owner="uid")
        for sealed in chain[1:4]:
            await log.append(sealed)
            await log.put_snapshot(snapshot_of(sealed), [b"chunk"])
        assert await log.renew(lease)
        assert await log.holder() == lease
        assert await log.load_snapshot(snapshot_of(chain[3])) == [b"chunk"]
        assert len(await log.read(START, block_s=0.01)) == 4
        await store.present(log.name, "writer", b"about")
        assert await store.replicas(log.name) == {"writer": b"about"}
        await log.trim(Position(1, 1))
        await store.commands.call("DEL", Keys().of(log.name).head)
        assert await log.repair(chain[3], owner="uid")
        head = await log.head()
        await log.create(chain[4], replacing=head)
        await log.resign(chain_of(6)[5], lease)
        assert await log.holder() is None

        for foreign in (up_log("west"), own_log("east"), GLOBAL_LOG):
            with pytest.raises(UnavailableError, match="ACL"):
                await store.log(foreign).head()
            with pytest.raises(FateUnknownError, match="ACL"):
                await store.log(foreign).append(chain[3])
        with pytest.raises(UnavailableError, match="ACL"):
            await store.announce("west")
        assert await of_global.zones() == frozenset()
    async with store_at(node.url("admin")) as admin:
        await admin.commands.call("FLUSHALL")
