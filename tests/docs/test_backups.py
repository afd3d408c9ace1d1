"""What the operations manual says of backups is done, in a mesh of real processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import Block, blocks
from tests.e2e.mesh import Mesh, eventually, program
from tests.patience import SLOWER
from tests.redis_deployments import server, users_file
from tests.redis_server import needs_redis
from zonemesh.errors import UnavailableError
from zonemesh.log import backup as backups
from zonemesh.log import snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Lease, Log
from zonemesh.log.redis import RedisStore
from zonemesh.registry import Registry
from zonemesh.travel import GLOBAL_LOG


@pytest.mark.redis
async def test_the_sample_user_may_save_and_no_more(tmp_path: Path) -> None:
    needs_redis(7)
    with server(tmp_path / "node", ("aclfile", str(users_file(tmp_path)))) as node:
        admin, reader = RedisStore(node.url("admin")), RedisStore(node.url("backup"))
        await snapshotted(admin.log(GLOBAL_LOG))
        target = reader.log(GLOBAL_LOG)

        saved = await backups.save(target, Registry(), saved_ms=1, version="")
        assert saved.log == GLOBAL_LOG
        with pytest.raises(UnavailableError, match="ACL"):
            await target.acquire(Lease(writer="w", url=""))
        await reader.close()
        await admin.close()


async def snapshotted(target: Log) -> None:
    """A log that goes on behind its snapshot."""
    registry = Registry()
    appender = Appender(target, writer="w", clock=Clock())
    registry.apply(await appender.create("inc", term=1))
    await snapshotter.write(target, registry.freeze())
    await appender.commit()


@pytest.mark.timeout(120)
def test_the_backups_of_the_operations_manual_restore_a_mesh(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    save, *restores = [block for block in blocks("sh") if "zonemesh snapshot" in block.text]
    try:
        mesh.start_redis()
        mesh.start("g1", "west")
        mesh.register("west", "redis")
        # A service is there before its address where the zone still waits for its first block.
        eventually(lambda: mesh.vips("g1").get("west/redis"), 10, mesh, "g1")
        before = mesh.vips("g1")
        run(save, mesh)
        for name in ("g1", "west"):
            mesh[name].stop()
            mesh.forget(name)
        mesh.empty_redis()
        for block in restores:
            run(block, mesh)
        mesh.start("g1", "west")

        eventually(lambda: mesh.vips("g1") == before, 20, mesh, "g1")
        assert mesh.vips("west") == before
    finally:
        mesh.close()


def run(block: Block, mesh: Mesh) -> None:
    text = block.text.replace("/var/lib/zonemesh/west", str(mesh.data_dir("west")))
    text = text.replace("6379", str(mesh.redis_port))
    done = subprocess.run(
        ["sh", "-euc", text.replace("zonemesh snapshot", f"{program('zonemesh')} snapshot")],
        env=os.environ,
        cwd=mesh.directory,
        capture_output=True,
        text=True,
        timeout=SLOWER * 30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
