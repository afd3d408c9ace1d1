"""One Envoy's stream of the incremental xDS protocol: requests in, responses out. Pure.

Of each type at most one response is under way; what changes meanwhile is sent together once that
is answered. A response that Envoy rejects is taken apart: the resources that its message names are
held to be rejected and all others accepted; of a message that names none, each half is sent again,
down to the single resource that is at fault.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol, incremental variant.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from zonecp.dataplane.envoy.store import CLUSTER, ENDPOINTS, LISTENER, TYPES, Ref, Resources

RESOURCES_MAX: Final = 256
"""In one response: 1.5 ms of this process, and a turn of Envoy's main thread."""

BYTES_MAX: Final = 2 << 20
"""Of payload in one response."""

TEXT_MAX: Final = 2_000
"""Characters that are kept of what Envoy says is wrong."""

WILDCARD: Final = "*"
_CUT: Final = "(truncated)"
"""What Envoy ends a message with that would be longer than 4,096 octets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A DeltaDiscoveryRequest."""

    type_url: str
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """What it has from an earlier stream; only in the first request of a type."""

    nonce: str = ""
    """Of the response that it answers; empty if none."""

    error: str | None = None
    """Why it rejected that one; None if it did not."""


class Sent(NamedTuple):
    """One resource of a response."""

    name: str
    version: str
    number: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: Sequence[Sent] = ()
    removed: Sequence[str] = ()


class Rejected(NamedTuple):
    version: str
    text: str
    """What Envoy says."""


@dataclass(slots=True)
class Counts:
    """Over the life of the agent, by type."""

    responses: Counter[str] = field(default_factory=Counter)
    acks: Counter[str] = field(default_factory=Counter)
    nacks: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    """Resources in responses."""

    removed: Counter[str] = field(default_factory=Counter)


class _Subscription:
    """What a stream knows of one type."""

    def __init__(self, request: Request) -> None:
        names = set(request.subscribe) - {WILDCARD}
        self.wildcard = not request.subscribe or WILDCARD in request.subscribe
        self.names = names
        self.held: dict[str, str] = dict(request.versions)
        """Versions that Envoy has accepted."""

        self.numbers: dict[str, int] = {}
        """Of the changes that brought those."""

        self.rejected: dict[str, Rejected] = {}
        self.dirty: dict[str, None] = {}
        """Names to be looked at, in order; what is as Envoy has it is left out then."""

        self.forced: set[str] = names - request.versions.keys()
        """Asked for: sent whatever Envoy has."""

        self.halves: deque[list[str]] = deque()
        """Parts of a rejected response that are sent again apart."""

        self.outstanding: Response | None = None
        self.answered = False
        """Envoy waits for the first response of a type, even if there is nothing in it."""

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


class Stream:
    """What one connected Envoy has, wants, was sent and has said."""

    def __init__(self, resources: Resources, counts: Counts) -> None:
        self._resources = resources
        self._counts = counts
        self._subscriptions: dict[str, _Subscription] = {}
        self._nonce = 0

    # What happens

    def changed(self, ref: Ref) -> None:
        """A resource was put or removed."""
        subscription = self._subscriptions.get(ref.type_url)
        if subscription is not None and subscription.wants(ref.name):
            subscription.dirty[ref.name] = None

    def request(self, request: Request) -> list[Ref]:
        """Take a request.

        Returns:
            The resources that it has decided, as accepted or as rejected.
        """
        if request.type_url not in TYPES:
            return []
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            return self._subscribe(request)
        decided: list[Ref] = []
        if request.nonce:
            decided = self._answered(request, subscription)
        for name in request.unsubscribe:
            subscription.names.discard(name)
            subscription.held.pop(name, None)
            subscription.forced.discard(name)
            if not subscription.wildcard:
                subscription.dirty.pop(name, None)
        added = [name for name in request.subscribe if name != WILDCARD]
        subscription.names.update(added)
        subscription.forced.update(added)
        subscription.dirty.update(dict.fromkeys(added))
        return decided

    def _subscribe(self, request: Request) -> list[Ref]:
        subscription = self._subscriptions[request.type_url] = _Subscription(request)
        present = self._resources.of(request.type_url)
        every: Iterable[str] = {**present, **request.versions} if subscription.wildcard else ()
        subscription.dirty = dict.fromkeys((*every, *subscription.names))
        same = [
            name
            for name, version in request.versions.items()
            if name in present and present[name].version == version
        ]
        subscription.numbers = {name: present[name].number for name in same}
        return [Ref(request.type_url, name) for name in same]

    def _answered(self, request: Request, subscription: _Subscription) -> list[Ref]:
        response = subscription.outstanding
        if response is None or response.nonce != request.nonce:
            return []  # of a response that a later one has overtaken
        subscription.outstanding = None
        if request.error is None:
            self._counts.acks[request.type_url] += 1
            self._accept(subscription, response.resources)
            _forget(subscription, response.removed)
        else:
            self._counts.nacks[request.type_url] += 1
            self._reject(subscription, response, request.error)
        return [Ref(request.type_url, sent.name) for sent in response.resources]

    def _accept(self, subscription: _Subscription, resources: Iterable[Sent]) -> None:
        for sent in resources:
            subscription.held[sent.name] = sent.version
            subscription.numbers[sent.name] = sent.number
            subscription.rejected.pop(sent.name, None)

    def _reject(self, subscription: _Subscription, response: Response, text: str) -> None:
        resources = response.resources
        named = _named(text, resources) if len(resources) > 1 else [*resources]
        if named or not resources:
            others = [sent for sent in resources if sent not in named]
            if text.rstrip().endswith(_CUT):
                subscription.halves.append([sent.name for sent in others])
            else:
                self._accept(subscription, others)
            _forget(subscription, response.removed)
            for sent in named:
                subscription.rejected[sent.name] = Rejected(sent.version, _about(sent, text))
            return
        # Nothing of it was taken.
        subscription.dirty.update(dict.fromkeys(response.removed))
        names = [sent.name for sent in resources]
        middle = len(names) // 2
        subscription.halves += [names[:middle], names[middle:]]

    # What is to be sent

    def responses(self) -> Iterator[Response]:
        """What is to be sent now; each is under way once it was given."""
        for type_url in TYPES:
            subscription = self._subscriptions.get(type_url)
            if subscription is None or subscription.outstanding is not None:
                continue
            if type_url == LISTENER and self._unsent(CLUSTER):
                continue  # no listener before its cluster
            response = self._next(type_url, subscription)
            if response is not None:
                subscription.outstanding, subscription.answered = response, True
                self._note(response)
                yield response

    def _next(self, type_url: str, subscription: _Subscription) -> Response | None:
        if subscription.halves:
            names: Collection[str] = subscription.halves.popleft()
            subscription.forced.update(names)
        else:
            names = subscription.dirty
        present = self._resources.of(type_url)
        # What may only not be known yet is looked at again once that is told.
        uncertain = frozenset() if self._resources.complete else subscription.held.keys() - present
        resources: list[Sent] = []
        removed: list[str] = []
        size = 0
        for name in [each for each in names if each not in uncertain]:
            if len(resources) == RESOURCES_MAX or size > BYTES_MAX:
                break
            resource = present.get(name)
            subscription.dirty.pop(name, None)
            forced = name in subscription.forced
            subscription.forced.discard(name)
            if resource is None:
                if forced or name in subscription.held or name in subscription.rejected:
                    removed.append(name)
            elif forced or not _decided(subscription, name, resource.version):
                resources.append(Sent(name, resource.version, resource.number, resource.payload))
                size += len(resource.payload)
        if not resources and not removed and subscription.answered:
            return None
        self._nonce += 1
        return Response(
            type_url=type_url, nonce=str(self._nonce), resources=resources, removed=removed
        )

    def _note(self, response: Response) -> None:
        type_url = response.type_url
        self._counts.responses[type_url] += 1
        self._counts.sent[type_url] += len(response.resources)
        self._counts.removed[type_url] += len(response.removed)
        endpoints = self._subscriptions.get(ENDPOINTS)
        if type_url != CLUSTER or endpoints is None:
            return
        # A cluster that is replaced waits for its endpoints anew, and need not ask for them again.
        again = [sent.name for sent in response.resources if sent.name in endpoints.names]
        endpoints.forced.update(again)
        endpoints.dirty.update(dict.fromkeys(again))

    def _unsent(self, type_url: str) -> bool:
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return False
        present = self._resources.of(type_url)
        return bool(subscription.halves) or any(name in present for name in subscription.dirty)

    # What is known

    @property
    def outstanding(self) -> bool:
        """A response waits for its answer."""
        return any(each.outstanding is not None for each in self._subscriptions.values())

    @property
    def settled(self) -> bool:
        """Envoy has asked for all types and has answered everything that there is."""
        return len(self._subscriptions) == len(TYPES) and not any(
            each.outstanding is not None or each.dirty or each.halves or not each.answered
            for each in self._subscriptions.values()
        )

    def accepted(self, ref: Ref) -> int:
        """The number of the change that Envoy has last accepted of a resource; 0 for none."""
        subscription = self._subscriptions.get(ref.type_url)
        return 0 if subscription is None else subscription.numbers.get(ref.name, 0)

    def rejection(self, ref: Ref) -> Rejected | None:
        """What Envoy said of a resource as it now is; None if it has not rejected that."""
        subscription = self._subscriptions.get(ref.type_url)
        found = None if subscription is None else subscription.rejected.get(ref.name)
        resource = self._resources.get(ref)
        return found if resource is not None and found and found[0] == resource.version else None

    def rejections(self) -> dict[Ref, str]:
        return {
            Ref(type_url, name): rejected.text
            for type_url, subscription in self._subscriptions.items()
            for name, rejected in subscription.rejected.items()
        }

    def held(self, type_url: str) -> Mapping[str, str]:
        """What Envoy has of a type: versions by name."""
        subscription = self._subscriptions.get(type_url)
        return {} if subscription is None else subscription.held


def _decided(subscription: _Subscription, name: str, version: str) -> bool:
    """Whether Envoy has taken, or refused, exactly this."""
    if subscription.held.get(name) == version:
        return name not in subscription.rejected
    rejected = subscription.rejected.get(name)
    return rejected is not None and rejected.version == version


def _forget(subscription: _Subscription, names: Iterable[str]) -> None:
    for name in names:
        subscription.held.pop(name, None)
        subscription.numbers.pop(name, None)
        subscription.rejected.pop(name, None)


def _about(sent: Sent, text: str) -> str:
    """What an error message says of one resource: Envoy has a line for each, `<name>: <words>`."""
    lines = [
        line.partition(f"{sent.name}: ")[2] or line
        for line in text.splitlines()
        if _named(line, [sent])
    ]
    return ("\n".join(lines) or text.strip())[:TEXT_MAX]


def _named(text: str, resources: Iterable[Sent]) -> list[Sent]:
    """The resources that an error message names, whole: not those whose names begin others'."""
    return [
        sent for sent in resources
        if sent.name in text
        and re.search(rf"(?<![\w:.\[-]){re.escape(sent.name)}(?![\w.\]-])", text)
    ]  # fmt: skip
