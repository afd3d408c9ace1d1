"""The hostnames that generators make of services, and who holds one that several want.

A hostname belongs to one service of a mesh. Of several that want it wins, in this order: the kind
(MeshMultiZoneService, MeshExternalService, MeshService), whoever has an address, the generator's
rank, the service's rank. None of these depends on when a claim was seen, so every reader of the
same state agrees.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from zonemesh import labels, names
from zonemesh.errors import InputError
from zonemesh.model import START, Key, Position, Record
from zonemesh.template import Template, TemplateError

MESH_SERVICE = "MeshService"
MESH_EXTERNAL_SERVICE = "MeshExternalService"
MESH_MULTI_ZONE_SERVICE = "MeshMultiZoneService"

KINDS = (MESH_MULTI_ZONE_SERVICE, MESH_EXTERNAL_SERVICE, MESH_SERVICE)
"""The kinds that get names, the strongest first: the order in which Kuma's data plane lets them
overwrite one another, since it does not detect collisions across kinds."""

SELECTORS: Mapping[str, str] = MappingProxyType(
    {
        "meshService": MESH_SERVICE,
        "meshExternalService": MESH_EXTERNAL_SERVICE,
        "meshMultiZoneService": MESH_MULTI_ZONE_SERVICE,
    }
)
"""Fields of a generator's selector, and the kind that each selects."""

GeneratorRank: TypeAlias = tuple[bool, int, str]
ServiceRank: TypeAlias = tuple[bool, int, Position, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A HostnameGenerator as one place sees it."""

    name: str
    """As shown there, so hashed if it came from elsewhere: Kuma's `hostnameGeneratorRef`."""
    key: str
    """Packed."""
    origin: str
    """`zone` or `global`: the last hop, relative to the place."""
    created_ms: int
    kind: str
    match_labels: tuple[tuple[str, str], ...]
    template: Template
    mesh: str = ""
    """The only mesh that it names services of; "" for all. Ours: Kuma's apply to every mesh."""

    @property
    def rank(self) -> GeneratorRank:
        """Sorts the generators that decide first to the front: a place's own, then the oldest."""
        return self.origin != labels.FROM_ZONE, self.created_ms, self.name


class ServiceFacts(NamedTuple):
    """What a service's names depend on."""

    kind: str
    key: str
    """Packed."""
    labels: Mapping[str, str]
    """All of them, as shown at the place (`labels.shown`)."""
    order: int | None = None
    """Drawn by global when it first merged the key; None until this place has learned it."""
    position: Position = START
    """Where the service entered its zone's own log; ranks those without an order."""
    waits: bool = False
    """It has no address yet. A name that another one answers to is not taken from that one by it:
    the pool may be short for as long as it likes."""

    @property
    def rank(self) -> ServiceRank:
        """Sorts merged services by their order, then the others as they were registered.

        Merging draws orders in that same sequence, and thus changes no verdict.
        """
        return self.order is None, self.order or 0, self.position, self.key


class ServiceId(NamedTuple):
    kind: str
    key: str

    def __str__(self) -> str:
        key = Key.parse(self.key)
        name = f"{key.namespace}/{key.name}" if key.namespace else key.name
        return f"{self.kind}: {name} ({f'zone {key.zone}' if key.zone else 'global'})"


class Reason(StrEnum):
    """Why a generator did or did not give a service a name: Kuma's condition reasons."""

    GENERATED = "Generated"
    COLLISION = "Collision"
    TEMPLATE_ERROR = "TemplateError"


class Refusal(NamedTuple):
    """A name that cannot be made."""

    reason: Reason
    message: str


class Outcome(NamedTuple):
    """What one generator did for one service: an entry of `status.hostnameGenerators`."""

    generator: Generator
    hostname: str | None
    """None if the template failed. With a collision, the name that was wanted."""
    reason: Reason
    message: str
    winner: ServiceId | None = None
    """Who holds the name instead; only with a collision."""

    @property
    def generated(self) -> bool:
        return self.reason is Reason.GENERATED


GENERATOR_KIND = "HostnameGenerator"


class DefaultGenerator(NamedTuple):
    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    """Labels to store; the computed ones follow from where it is stored."""


def default_global_generators() -> tuple[DefaultGenerator, ...]:
    """The generators that a global control plane starts with; they name what zones receive."""
    synced = {labels.ORIGIN: labels.FROM_GLOBAL}
    kubernetes = synced | {labels.ENV: labels.KUBERNETES}
    pod = f'{{{{ label "{labels.POD_NAME}" }}}}.{{{{ label "{labels.SERVICE_NAME}" }}}}'
    return (
        _default(
            "synced-mesh-multi-zone-service",
            "meshMultiZoneService",
            synced,
            "{{ .DisplayName }}.mzsvc.mesh.local",
        ),
        _default(
            "synced-kube-mesh-service",
            "meshService",
            kubernetes | {labels.IS_HEADLESS: "false"},
            "{{ .DisplayName }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local",
        ),
        _default(
            "synced-headless-kube-mesh-service",
            "meshService",
            kubernetes | {labels.IS_HEADLESS: "true"},
            pod + ".{{ .Namespace }}.svc.{{ .Zone }}.mesh.local",
        ),
        _default(
            "synced-universal-mesh-service",
            "meshService",
            synced | {labels.ENV: labels.UNIVERSAL},
            "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local",
        ),
        _default(
            "synced-mesh-external-service",
            "meshExternalService",
            synced,
            "{{ .DisplayName }}.extsvc.mesh.local",
        ),
    )


def default_zone_generators(
    env: str = labels.UNIVERSAL, *, federated: bool = True
) -> tuple[DefaultGenerator, ...]:
    """The generators that a zone starts with; they name what was made in it.

    Kubernetes names its own services, so that there only external ones need a generator. A zone
    without a global has services of several zones only in name, but documents that make some must
    work there too: Kuma has no generator for them and leaves them nameless.
    """
    local = {labels.ORIGIN: labels.FROM_ZONE}
    external = _default(
        "local-mesh-external-service",
        "meshExternalService",
        local,
        "{{ .DisplayName }}.extsvc.mesh.local",
    )
    universal = _default(
        "local-universal-mesh-service",
        "meshService",
        local,
        "{{ .DisplayName }}.svc.mesh.local",
    )
    multi_zone = _default(
        "local-mesh-multi-zone-service",
        "meshMultiZoneService",
        local,
        "{{ .DisplayName }}.mzsvc.mesh.local",
    )
    found = (external, universal) if env == labels.UNIVERSAL else (external,)
    return found if federated else (*found, multi_zone)


def _default(
    name: str, selector: str, match_labels: Mapping[str, str], template: str
) -> DefaultGenerator:
    spec = {"selector": {selector: {"matchLabels": dict(match_labels)}}, "template": template}
    return DefaultGenerator(name, spec, {})


def parse_generator(key: Key, record: Record, here: str) -> Generator:
    """Read a stored generator as the place `here` ("" on global) sees it.

    Raises:
        InputError: A spec that this build cannot evaluate; one stored by a newer build may be so.
    """
    match record.spec:
        case {"selector": dict(selector), "template": str(text)}:
            chosen = [(name, value) for name, value in selector.items() if value is not None]
        case _:
            raise InputError(f"{key.packed}: not a generator's spec")
    match chosen:
        case [(str(field), dict(value))] if field in SELECTORS:
            match_labels = value.get("matchLabels") or {}
        case _:
            raise InputError(f"{key.packed}: not a selector of this build")
    return Generator(
        name=labels.synced_name(key, here),
        key=key.packed,
        origin=labels.origin(key.zone, here),
        created_ms=record.created_ms,
        kind=SELECTORS[field],
        match_labels=tuple(match_labels.items()),
        template=Template.parse(text),
        mesh=str(record.spec.get("mesh") or ""),
    )


def matches(generator: Generator, service_labels: Mapping[str, str]) -> bool:
    """Whether a service of the generator's kind is selected: every pair is equal."""
    get = service_labels.get
    for name, value in generator.match_labels:  # noqa: SIM110 - all() takes twice as long
        if get(name) != value:
            return False
    return True


def hostname(generator: Generator, service: ServiceFacts, here: str) -> str | Refusal:
    """The name that a generator makes for a service that it matches, be it free or not.

    Args:
        generator: One of the service's kind.
        service: With its labels as shown at `here`.
        here: The zone that evaluates; what `.Zone` is for services without a zone.
    """
    get = service.labels.get
    mesh, _, rest = service.key.partition("/")
    display_name = get(labels.DISPLAY_NAME) or rest.rpartition("/")[2]
    data = {
        "DisplayName": display_name,
        "Namespace": get(labels.NAMESPACE, ""),
        "Mesh": mesh,
        "Zone": get(labels.ZONE, here),
    }
    # Computing the hash of a name costs more than all the rest, and hardly any template asks.
    if "Name" in generator.template.fields:
        data["Name"] = labels.synced_name(Key.parse(service.key), here)

    def label(name: str) -> str:
        value = get(name)
        if value is None:
            raise TemplateError(f"label {name} not found")
        return value

    try:
        rendered = generator.template.render(data, {"label": label})
    except TemplateError as error:
        return Refusal(Reason.TEMPLATE_ERROR, str(error))
    if names.is_hostname(rendered):
        return rendered
    fault = names.hostname_fault(rendered)
    return Refusal(Reason.TEMPLATE_ERROR, f'"{rendered}" is not a valid DNS name: {fault}')


def made_by(generator: Generator, service: ServiceFacts, here: str) -> Outcome:
    """What a generator makes of a service that it matches, as if nobody else wanted the name."""
    name = hostname(generator, service, here)
    if isinstance(name, Refusal):
        return Outcome(generator, None, name.reason, name.message)
    return Outcome(generator, name, Reason.GENERATED, "")


class _Claim(NamedTuple):
    """One service's best claim to one hostname. Claims of a kind sort by who wins."""

    waits: bool
    generator: GeneratorRank
    service: ServiceRank


class _Change(NamedTuple):
    """A generator of before, of now, or of both."""

    generator: Generator
    was: bool
    remains: bool


# Nearly every hostname is wanted by one service of a kind. It is then the service's key, a string
# that exists anyway; only a contested one is a list, the winner first.
_Holders: TypeAlias = dict[str, str | list[_Claim]]


class Claims:
    """Who holds which hostname in one mesh, as one place sees it.

    What a service claims is not stored but derived from its facts again, by whoever knows them:
    `put` takes the facts before and after a change, and `lookup` must answer every other service's
    facts as they were last put. Change the table behind `lookup` and call `put` service by service.

    Other generators take effect service by service as well (`change_generators`, `move`), so that
    100,000 services can be named anew without standing still.
    """

    def __init__(
        self,
        here: str,
        lookup: Callable[[str, str], ServiceFacts],
        generators: Iterable[Generator] = (),
    ) -> None:
        """Start without services.

        Args:
            here: The zone that evaluates; "" on global.
            lookup: (kind, packed key) → the facts of a service that was put.
            generators: Of any kinds, in any order.
        """
        self._here = here
        self._lookup = lookup
        self._generators = _by_kind(generators)
        self._former: dict[str, Sequence[Generator]] = {}
        self._changes: dict[str, Sequence[_Change]] = {}
        """By kind that is being named anew: all generators of before and of now, by rank."""
        self._unmoved: dict[str, set[str]] = {}
        """Keys by kind whose claims are still those of the former generators."""
        self._holders: dict[str, _Holders] = {kind: {} for kind in KINDS}
        self._rivals: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many hostnames somebody holds; one held in two kinds counts twice."""
        return sum(map(len, self._holders.values()))

    def hostnames(self) -> Iterator[str]:
        """Every hostname that somebody holds, once."""
        for rank, kind in enumerate(KINDS):
            stronger = [self._holders[other] for other in KINDS[:rank]]
            for name in self._holders[kind]:
                if not any(name in holders for holders in stronger):
                    yield name

    def put(self, old: ServiceFacts | None, new: ServiceFacts | None) -> set[str]:
        """Take in a new (old is None), changed or removed (new is None) service.

        Returns:
            The hostnames that have another winner now, or have one only now or no longer.
        """
        service = new or old
        if service is None or old == new:
            return set()
        before = self._claims(old) if old is not None else {}
        moved = self._settle(service.kind, service.key)
        if old is not None and new is not None and old.labels == new.labels and not moved:
            # Only its rank is new: every service goes through this when global has merged it.
            after = {
                name: claim._replace(waits=new.waits, service=new.rank)
                for name, claim in before.items()
            }
        else:
            after = self._claims(new) if new is not None else {}
        return self._exchange(service.kind, before, after)

    def remove(self, service: ServiceFacts) -> set[str]:
        """`put(service, None)`."""
        return self.put(service, None)

    def change_generators(
        self, generators: Iterable[Generator], keys: Callable[[str], Iterable[str]]
    ) -> list[str]:
        """Begin to evaluate with other generators; not before all of the last time were moved.

        Args:
            generators: All of them.
            keys: kind → the packed keys of all its services.

        Returns:
            The kinds whose generators differ: `move` each of their services.
        """
        fresh = _by_kind(generators)
        changed = [kind for kind in KINDS if fresh[kind] != self._generators[kind]]
        self._former = {kind: self._generators[kind] for kind in changed}
        self._changes = {kind: _changes(self._former[kind], fresh[kind]) for kind in changed}
        self._unmoved = {kind: set(keys(kind)) for kind in changed}
        self._generators = fresh
        return changed

    def move(self, kind: str, key: str, service: ServiceFacts | None) -> set[str]:
        """Evaluate one service with the generators of now; None if it was never put.

        Returns:
            As `put`.
        """
        changes = self._changes.get(kind, ())
        if not self._settle(kind, key) or service is None:
            return set()
        chosen = [change for change in changes if matches(change.generator, service.labels)]
        if all(change.was is change.remains for change in chosen):
            return set()
        before: dict[str, _Claim] = {}
        after: dict[str, _Claim] = {}
        for generator, was, remains in chosen:
            name = hostname(generator, service, self._here)
            if isinstance(name, str):
                claim = _Claim(service.waits, generator.rank, service.rank)
                if was:
                    before.setdefault(name, claim)
                if remains:
                    after.setdefault(name, claim)
        return self._exchange(kind, before, after)

    def _settle(self, kind: str, key: str) -> bool:
        """From here on a service is evaluated with the generators of now; whether it was not."""
        unmoved = self._unmoved.get(kind)
        if unmoved is None or key not in unmoved:
            return False
        unmoved.discard(key)
        if not unmoved:
            del self._unmoved[kind], self._former[kind], self._changes[kind]
        return True

    def _exchange(
        self, kind: str, before: Mapping[str, _Claim], after: Mapping[str, _Claim]
    ) -> set[str]:
        """Withdraw and stake what differs; the names that have another winner now."""
        changed = [name for name, claim in before.items() if after.get(name) != claim]
        changed += [name for name in after if name not in before]
        held = [self.winner(name) for name in changed]
        for name in changed:
            if name in before:
                self._withdraw(kind, name, before[name])
        for name in changed:
            if name in after:
                self._stake(kind, name, after[name])
        return {
            name for name, winner in zip(changed, held, strict=True) if self.winner(name) != winner
        }

    def contested(self, kind: str, key: str) -> bool:
        """Whether a service wants a hostname that another one of its kind wants too.

        Only then does its rank decide anything, and a change of it must be `put`.
        """
        return f"{kind}/{key}" in self._rivals

    def winner(self, name: str) -> ServiceId | None:
        """Who holds a hostname; None if nobody wants it."""
        for kind in KINDS:
            holder = self._holders[kind].get(name)
            if holder is not None:
                return ServiceId(kind, holder if isinstance(holder, str) else _key(holder[0]))
        return None

    def outcomes(self, service: ServiceFacts) -> list[Outcome]:
        """What every generator that selects the service did for it, by the generators' names."""
        generators = [g for g in self._generators[service.kind] if matches(g, service.labels)]
        generators.sort(key=lambda generator: generator.name)
        return [self._outcome(generator, service) for generator in generators]

    def hostnames_of(self, service: ServiceFacts) -> list[str]:
        """The hostnames that the service holds, the best generator's first, each once."""
        own = (service.kind, service.key)
        return [name for name in self._claims(service) if self.winner(name) == own]

    def _outcome(self, generator: Generator, service: ServiceFacts) -> Outcome:
        made = made_by(generator, service, self._here)
        name = made.hostname
        winner = None if name is None else self.winner(name)
        if winner is None or winner == (service.kind, service.key):
            return made
        message = f"Hostname collision with {winner}"
        return Outcome(generator, name, Reason.COLLISION, message, winner)

    def _claims(self, service: ServiceFacts) -> dict[str, _Claim]:
        """Every hostname that the service wants, with its best claim to it."""
        found: dict[str, _Claim] = {}
        generators = self._generators[service.kind]
        if service.key in self._unmoved.get(service.kind, ()):
            generators = self._former[service.kind]
        for generator in generators:
            if matches(generator, service.labels):
                name = hostname(generator, service, self._here)
                if isinstance(name, str) and name not in found:
                    found[name] = _Claim(service.waits, generator.rank, service.rank)
        return found

    def _stake(self, kind: str, name: str, claim: _Claim) -> None:
        holders = self._holders[kind]
        holder = holders.get(name)
        if holder is None:
            holders[name] = _key(claim)
        elif isinstance(holder, str):
            other = self._claims(self._lookup(kind, holder))[name]
            holders[name] = sorted((other, claim))
            self._rivals.update((f"{kind}/{holder}", f"{kind}/{_key(claim)}"))
        else:
            insort(holder, claim)
            self._rivals[f"{kind}/{_key(claim)}"] += 1

    def _withdraw(self, kind: str, name: str, claim: _Claim) -> None:
        holders = self._holders[kind]
        holder = holders[name]
        if isinstance(holder, str):
            del holders[name]
            return
        del holder[bisect_left(holder, claim)]
        self._no_rival(kind, claim)
        if len(holder) == 1:
            self._no_rival(kind, holder[0])
            holders[name] = _key(holder[0])

    def _no_rival(self, kind: str, claim: _Claim) -> None:
        service = f"{kind}/{_key(claim)}"
        self._rivals[service] -= 1
        if self._rivals[service] <= 0:
            del self._rivals[service]


def _key(claim: _Claim) -> str:
    return claim.service[-1]


def _changes(former: Sequence[Generator], fresh: Sequence[Generator]) -> list[_Change]:
    either = [*former, *(each for each in fresh if each not in former)]
    either.sort(key=lambda generator: generator.rank)
    return [_Change(each, each in former, each in fresh) for each in either]


def _by_kind(generators: Iterable[Generator]) -> dict[str, Sequence[Generator]]:
    """Per kind, the ones that decide first to the front."""
    ranked = sorted(generators, key=lambda generator: generator.rank)
    return {kind: tuple(g for g in ranked if g.kind == kind) for kind in KINDS}
