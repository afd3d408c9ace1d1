"""What of the agent serves names: made first, and answering from disk while the rest is imported.

An agent that starts with every control plane dead is to answer at once. Its HTTP client and server
take longer to import than everything here.
"""

from __future__ import annotations

import asyncio
import secrets
from importlib import import_module

from zonecp.dataplane.cache import Cache
from zonecp.dataplane.config import Config
from zonecp.dataplane.envoy.heldback import HeldBack
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.loopprobe import TOKEN_BYTES
from zonecp.dataplane.names import Names
from zonecp.dataplane.outbounds import Outbounds
from zonecp.dataplane.service import DnsService
from zonemesh.runtime.datadir import data_dir


class Early:
    """The map, its copy on disk, and DNS."""

    def __init__(self, config: Config) -> None:
        self.secret = secrets.token_bytes(2 * TOKEN_BYTES)
        """Shared with workers; as in `LoopProbe`."""

        self.state = FeedState()
        self.outbounds = _outbounds(config)
        self.dns = DnsService(config.dns, self.outbounds, self.secret)
        self.table = self.dns.table
        self.names: Names = HeldBack(self.table) if config.envoy.enabled else self.table
        """What the feed says, of which the table answers what it may."""

        # Without endpoints they are of no use to a later agent that has an Envoy.
        kept = self.outbounds if config.envoy.enabled else None
        self.cache = Cache(config.data_dir, self.names, self.state, kept)


async def run(config: Config, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        ConfigError: What keeps the agent from starting.
        ExceptionGroup: What ended it later.
    """
    with data_dir(config.data_dir):
        early = Early(config)
        try:
            if config.dns.enabled:
                early.dns.bind()
            # What stands between outbounds and an Envoy has to be there before they are.
            if not config.envoy.enabled:
                early.cache.load()
                early.dns.answer_early()
            app = await asyncio.to_thread(import_module, "zonecp.dataplane.app")
            await app.run(config, early, stop)
        finally:
            early.dns.close()


def _outbounds(config: Config) -> Outbounds | None:
    """What is followed of them, for who needs it."""
    if config.envoy.enabled:
        return Outbounds()
    return Outbounds(endpoints=False) if config.dns.srv else None
