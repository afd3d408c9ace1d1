"""The process of a worker: answers what its agent tells it, and ends with it."""

from __future__ import annotations

import asyncio
import random
import socket
import time

import structlog

from zonecp.dataplane.config import Config
from zonecp.dataplane.outbounds import Outbounds
from zonecp.dataplane.querylog import Wanted
from zonecp.dataplane.relay import Channel, Hello, Update
from zonecp.dataplane.service import DnsService
from zonemesh.errors import WireError
from zonemesh.runtime import config as configuration
from zonemesh.runtime import logging, main
from zonemesh.runtime.supervise import Backoff, supervise

log = structlog.get_logger(__name__)

COUNTS_S = 1.0
RECONNECT = Backoff(base_s=0.1, max_s=5.0)


class Worker:
    def __init__(self, channel: Channel, config: Config, secret: bytes) -> None:
        self._channel = channel
        self._outbounds = Outbounds(endpoints=False) if config.dns.srv else None
        self.service = DnsService(config.dns, self._outbounds, secret)
        self._query_log_s = 0.0

    async def catch_up(self) -> bool:
        """Learn what the agent knows, before anybody is answered; False if it has gone."""
        while (update := await self._channel.receive(Update)) is not None:
            self._take(update)
            if not update.more:
                return True
        return False

    async def follow(self) -> None:
        """Take what the agent says, until it is gone."""
        while (update := await self._channel.receive(Update)) is not None:
            self._take(update)

    async def count(self) -> None:
        while True:
            try:
                await self._channel.send(self.service.counts())
            except OSError:
                return
            await asyncio.sleep(COUNTS_S)

    def _take(self, update: Update) -> None:
        table = self.service.table
        for key, entry in update.entries.items():
            if entry is None:
                table.remove(key)
            else:
                table.put(key, entry)
        table.set_domains(update.domains)
        table.loaded, table.complete = update.loaded, update.complete
        if self._outbounds is not None:
            self._outbounds.put(update.outbounds)
            self._outbounds.remove(
                each for each in update.removed_outbounds if self._outbounds.get(each) is not None
            )
            if update.outbounds_whole:
                self._outbounds.end()
        self._take_query_log(update)

    def _take_query_log(self, update: Update) -> None:
        query_log = self.service.query_log
        on, wanted = update.query_log_s > 0, update.query_log_s + time.monotonic()
        if on != query_log.on or (on and update.query_log_sample != query_log.wanted.sample):
            query_log.want(Wanted(wanted if on else 0.0, update.query_log_sample))


async def run(descriptor: int, stop: asyncio.Event) -> None:
    """Serve until the agent is gone, or `stop` is set.

    Args:
        descriptor: This end of the socket pair (`relay`).
        stop: As `main.run_main` gives it.

    Raises:
        ConfigError: The port cannot be shared.
        WireError: The agent is of another version.
    """
    sock = socket.socket(fileno=descriptor)
    channel = Channel(*await asyncio.open_connection(sock=sock))
    try:
        hello = await channel.receive(Hello)
        if hello is None:
            return
        config, _ = configuration.load(Config, hello.config, {})
        logging.configure(config.log.level, config.log.format)
        structlog.contextvars.bind_contextvars(worker=hello.worker)
        worker = Worker(channel, config, hello.secret)
        if not await worker.catch_up():
            return
        worker.service.bind(first=False)
        main.freeze_heap()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_end_with(worker, stop))
                components = {**worker.service.components(), "counts": worker.count}
                await supervise(components, RECONNECT, random.Random(), stop=stop)
        finally:
            worker.service.close()
    finally:
        channel.close()


async def _end_with(worker: Worker, stop: asyncio.Event) -> None:
    try:
        await worker.follow()
    except WireError as error:
        log.warning("agent_not_understood", error=str(error))
    stop.set()
