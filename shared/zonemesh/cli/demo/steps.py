"""The demo's steps as data: what is done, what must come of it, and whose log tells if it does not.

Watched or unattended, it is the same steps that run; each both shows and checks.
"""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Address, IPv6Address

from zonemesh.cli.demo import load, web
from zonemesh.cli.demo.dns import NO_ANSWER, Answer
from zonemesh.cli.demo.mesh import (
    AGENTS,
    GLOBALS,
    INSTANCES,
    SERVICE,
    WEB_AGENT,
    ZONES,
    dataplane,
    name_in,
    ping,
)
from zonemesh.cli.demo.ports import HOST
from zonemesh.cli.demo.story import Condition, Row, Step, StepFailedError, Story, require, until

START_S = 60.0
"""For processes to start and find each other: two slow cores, seven interpreters, and a test suite
beside them."""

RESOLVE_S = 15.0
"""For what takes milliseconds, or a lease's time where a leader has died: the figures say how long
it took, this that it does not come."""

SAMPLES = 20
PAUSE_S = 0.03
"""Between two measured registrations: each finds an idle mesh, as a person's would."""

POLL_S = 0.0005
TTL_S = 60
IPV6_PREFIX = int(IPv6Address("fd00:fd00::"))
LATER = "orders"
"""The service that is registered while no global leads."""


async def start_redis(story: Story) -> str:
    await story.mesh.processes.start_redis("redis", story.mesh.ports.redis)
    return f"{HOST}:{story.mesh.ports.redis}, append-only file: it survives a restart"


async def start_globals(story: Story) -> str:
    mesh = story.mesh
    # Zones need a while to start too; that they wait for global is shown by their coming up.
    for name in GLOBALS:
        mesh.start_global(name)
    for name in ZONES:
        mesh.start_zone(name)
    await until(_led(story), START_S, "no global leads")
    await until(_ready(story, *GLOBALS), START_S, "the standby has not caught up")
    standby = next(name for name in GLOBALS if name != story.leader)
    return f"{story.leader} leads, {standby} follows the log and stands by"


async def start_zones(story: Story) -> str:
    await until(_ready(story, *ZONES), START_S, "the zones are not ready")

    async def online() -> bool:
        state = await story.mesh.state(story.leader) or {"zones": {}}
        return {zone for zone, seen in state["zones"].items() if seen["online"]} == set(ZONES)

    await until(online, START_S, "global does not see both zones online")
    return "both online, each with blocks of addresses of its own to give out"


async def start_agents(story: Story) -> str:
    mesh, ports = story.mesh, story.mesh.ports
    await mesh.processes.start_redis("service", ports.service)
    mesh.start_agent("west", ports.west_dns, dataplane(SERVICE, HOST, ports.service))
    mesh.start_agent("east", ports.east_dns, None)
    await until(_ready(story, *AGENTS), START_S, "the agents have no map")
    return f"DNS on {HOST}:{ports.west_dns} (west) and {HOST}:{ports.east_dns} (east)"


async def register_service(story: Story) -> str:
    name = name_in("east", SERVICE)

    async def resolves() -> bool:
        return (await story.mesh.resolve("east", name)).address is not None

    await until(resolves, RESOLVE_S, f"{name} does not resolve in east")
    v4, v6 = await _both(story, "east", name)
    require(
        that=v4.address is not None and v4.address.startswith("241."),
        failure=f"A of {name} is {v4.address or v4.rcode}, not in 241.0.0.0/8",
    )
    assert v4.address is not None
    derived = str(IPv6Address(IPV6_PREFIX | int(IPv4Address(v4.address))))
    require(that=v6.address == derived, failure=f"AAAA is {v6.address or v6.rcode}, not {derived}")
    require(that={v4.ttl, v6.ttl} == {TTL_S}, failure=f"TTL is {v4.ttl} and {v6.ttl}, not {TTL_S}")
    story.rows[SERVICE] = Row(SERVICE, (v4.address, derived))
    return f"{name} is {v4.address} and {derived}, TTL {TTL_S}"


async def same_in_west(story: Story) -> str:
    name, expected = name_in("west", SERVICE), story.rows[SERVICE].ips
    v4, v6 = await _both(story, "west", name)
    found = (v4.address or v4.rcode, v6.address or v6.rcode)
    require(that=found == expected, failure=f"{name} is {found} in west, {expected} in east")
    for zone in ZONES:
        story.watch.expect(zone, name_in(zone, SERVICE), expected[0])
    return f"{name} is {found[0]} there as well"


async def all_agree(story: Story) -> str:
    expected = story.rows[SERVICE].ips

    async def agreed() -> bool:
        held = [await story.mesh.vips(plane) for plane in (*GLOBALS, *ZONES)]
        return all(vips.get(f"west/{SERVICE}") == expected for vips in held)

    await until(agreed, RESOLVE_S, f"not all control planes hold {expected[0]}")
    return f"{', '.join((*GLOBALS, *ZONES))} hold {expected[0]}"


async def reach(story: Story) -> str:
    endpoint = await story.mesh.endpoint("east", story.address(SERVICE))
    if endpoint is None:
        raise StepFailedError(f"east knows no endpoint of {story.address(SERVICE)}")
    reply = await asyncio.to_thread(ping, *endpoint)
    require(that=reply == b"+PONG\r\n", failure=f"{endpoint} answers {reply!r}")
    return f"east sends {story.address(SERVICE)} to {endpoint[0]}:{endpoint[1]}: PING, PONG"


async def propagate(story: Story) -> str:
    for number in range(1, SAMPLES + 1):
        await measure(story, f"svc-{number}")
        await asyncio.sleep(PAUSE_S)
    found = story.propagation()
    return f"{found['n']} registrations: p50 {found['p50']} ms, max {found['max']} ms"


async def measure(story: Story, service: str) -> str:
    """Register a service in west, ask east's agent until it answers; the address."""
    mesh, name = story.mesh, name_in("east", service)
    async with story.measuring:
        started_s = time.perf_counter()
        put = asyncio.ensure_future(mesh.register(service))
        while (answer := await mesh.resolve("east", name)).address is None:
            if time.perf_counter() - started_s > RESOLVE_S:
                status = await put
                raise StepFailedError(
                    f"{name} does not resolve in east within {RESOLVE_S:g} s"
                    f" ({answer.rcode}; the PUT was answered with {status or 'nothing'})"
                )
            await asyncio.sleep(POLL_S)
        story.samples_ms.append((time.perf_counter() - started_s) * 1000)
    await put
    return answer.address


async def kill_leader(story: Story) -> str:
    mesh = story.mesh
    story.vips = {plane: await mesh.vips(plane) for plane in (*GLOBALS, *ZONES)}
    story.killed, story.killed_at_s = story.leader, time.monotonic()
    mesh.processes.kill(story.killed)
    return f"{story.killed} is gone, and nobody leads"


async def west_goes_on(story: Story) -> str:
    mesh, name = story.mesh, name_in("west", LATER)
    started_s = time.monotonic()
    status = await mesh.register(LATER)
    took_ms = (time.monotonic() - started_s) * 1000
    require(that=status == 201, failure=f"west answers {status or 'nothing'} to a new registration")

    async def resolves() -> bool:
        return (await mesh.resolve("west", name)).address is not None

    await until(resolves, RESOLVE_S, f"{name} does not resolve in west")
    v4, v6 = await _both(story, "west", name)
    assert v4.address is not None
    story.rows[LATER] = Row(LATER, (v4.address, v6.address or v6.rcode), "new")
    return f"201 after {took_ms:.0f} ms, with its address: {name} is {v4.address}"


async def reaches_east(story: Story) -> str:
    name, expected = name_in("east", LATER), story.address(LATER)

    async def resolves() -> bool:
        return (await story.mesh.resolve("east", name)).address == expected

    await until(resolves, RESOLVE_S, f"{name} is not {expected} in east")
    failover_s = time.monotonic() - story.killed_at_s
    story.figures["failover_s"] = round(failover_s, 2)
    await until(_led(story), RESOLVE_S, "no global leads")
    return f"{story.leader} leads; {name} resolved {failover_s:.2f} s after the kill"


async def nothing_moved(story: Story) -> str:
    planes = [plane for plane in (*GLOBALS, *ZONES) if plane != story.killed]
    changed = compared = 0
    for plane in planes:
        now = await story.mesh.vips(plane)
        both = story.vips[plane].keys() & now.keys()
        require(that=bool(both), failure=f"{plane} has lost its services")
        compared = max(compared, len(both))
        changed += sum(story.vips[plane][key] != now[key] for key in both)
    story.figures["vips_changed"] = changed
    require(that=changed == 0, failure=f"{changed} addresses changed")
    require(that=not story.watch.failed, failure="; ".join(story.watch.failures))
    return (
        f"{compared} addresses compared in {len(planes)} places; {story.watch.asked:,} questions"
        " asked since the start, each answered rightly"
    )


async def bring_back(story: Story) -> str:
    story.mesh.start_global(story.killed)
    await until(_ready(story, story.killed), START_S, f"{story.killed} has not caught up")
    leader = await story.mesh.leader()
    require(that=leader == story.leader, failure=f"{leader} leads instead of {story.leader}")
    came_back, story.killed = story.killed, ""
    return f"{came_back} has read the log and stands by; {leader} goes on leading"


async def remove(story: Story) -> str:
    # Envoy and its agent need a while to start; the grace period is one.
    await web.start(story)
    name = name_in("east", LATER)
    started_s = time.monotonic()
    status = await story.mesh.remove(LATER)
    require(that=status == 200, failure=f"west answers {status or 'nothing'} to the DELETE")

    async def gone() -> bool:
        answer = await story.mesh.resolve("east", name)
        return answer is not NO_ANSWER and answer.address is None

    await until(gone, RESOLVE_S, f"{name} still resolves in east")
    story.figures["grace_s"] = round(time.monotonic() - started_s, 2)
    story.rows[LATER].note = "removed"
    return f"{name} is unknown after {story.figures['grace_s']} s (grace period 2 s)"


async def return_same(story: Story) -> str:
    expected = story.address(LATER)
    address = await measure(story, LATER)
    require(that=address == expected, failure=f"{LATER} came back as {address}, was {expected}")
    story.rows[LATER].note = "back"
    return f"{name_in('east', LATER)} is {address} again"


async def nothing_missed(story: Story) -> str:
    watch = story.watch
    story.figures["dns"] = {"asked": watch.asked, "failed": watch.failed}
    require(that=not watch.failed, failure="; ".join(watch.failures))
    return f"{watch.asked:,} questions for {SERVICE} in both zones, 0 without the right answer"


async def _both(story: Story, zone: str, name: str) -> tuple[Answer, Answer]:
    return await story.mesh.resolve(zone, name), await story.mesh.resolve(zone, name, "AAAA")


def _ready(story: Story, *names: str) -> Condition:
    async def ready() -> bool:
        failed = story.mesh.processes.failed()
        if failed is not None:
            code = failed.process.returncode
            raise StepFailedError(f"{failed.name} has ended with exit code {code}")
        return not any([await story.mesh.not_ready(name) for name in names])

    return ready


def _led(story: Story) -> Condition:
    async def led() -> bool:
        leader = await story.mesh.leader()
        story.leader = leader or story.leader
        return leader is not None

    return led


STEPS = (
    Step(
        key="redis",
        title="Start a durable Redis, which keeps the global log",
        run=start_redis,
        about=("redis",),
    ),
    Step(
        key="globals",
        title="Start two globals; one leads",
        run=start_globals,
        about=GLOBALS,
    ),
    Step(
        key="zones",
        title="Zones west and east join",
        run=start_zones,
        about=ZONES,
    ),
    Step(
        key="agents",
        title="An agent beside each workload; west has a service, a redis-server",
        run=start_agents,
        about=("service", *AGENTS),
    ),
    Step(
        key="resolves_in_east",
        title="West's agent registers it: its name resolves in east",
        run=register_service,
        about=("west-agent", "east-agent"),
    ),
    Step(
        key="same_address_in_west",
        title="Same address in west, under west's own name",
        run=same_in_west,
        about=("west-agent",),
    ),
    Step(
        key="control_planes_agree",
        title="Both globals and both zones hold that address",
        run=all_agree,
        about=(*GLOBALS, *ZONES),
    ),
    Step(
        key="endpoint_reached",
        title="The service answers at the endpoint that east was told",
        run=reach,
        about=("service", "east"),
    ),
    Step(
        key="propagation",
        title="Register in west, ask in east: how long does it take?",
        run=propagate,
        about=("west", "east", "east-agent"),
    ),
    Step(
        key="load",
        title="Load more services through west's bulk endpoint",
        run=load.load,
        about=("west", "east"),
    ),
    Step(
        key="leader_killed",
        title="Kill the leading global: SIGKILL, as a crash would",
        run=kill_leader,
        about=GLOBALS,
        pause_s=4.0,
    ),
    Step(
        key="west_registers_without_leader",
        title="West registers a new service all the same",
        run=west_goes_on,
        about=("west",),
    ),
    Step(
        key="reaches_east_after_failover",
        title="The standby takes over; the new service resolves in east",
        run=reaches_east,
        about=(*GLOBALS, "west", "east"),
    ),
    Step(
        key="no_vip_changed",
        title="No address has changed, no name was missing at any moment",
        run=nothing_moved,
        about=(*GLOBALS, *ZONES),
    ),
    Step(
        key="killed_global_returns",
        title="Start the killed global again",
        run=bring_back,
        about=GLOBALS,
        pause_s=3.0,
    ),
    Step(
        key="removed_name_goes",
        title="Remove the new service: its name stops resolving",
        run=remove,
        about=("west", "east"),
    ),
    Step(
        key="address_comes_back",
        title="Register it again: it gets the same address",
        run=return_same,
        about=("west", "east"),
    ),
    Step(
        key="http_through_vip",
        title="HTTP through an Envoy to web, in both zones; then kill the instance that answered",
        run=web.reach,
        about=(WEB_AGENT, *INSTANCES.values()),
    ),
    Step(
        key="always_answered",
        title="Was the first service answered all the time?",
        run=nothing_missed,
        about=AGENTS,
    ),
)
