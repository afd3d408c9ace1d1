"""The incremental xDS protocol as one Envoy sees it: what is sent, and what its answers mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zonecp.dataplane.envoy.ads import RESOURCES_MAX, Counts, Request, Response, Stream
from zonecp.dataplane.envoy.store import CLUSTER, ENDPOINTS, LISTENER, Ref, Resources


class Conversation:
    """A stream with the resources behind it, and what an Envoy says."""

    def __init__(self, clusters: Iterable[str] = (), listeners: Iterable[str] = ()) -> None:
        self.resources = Resources()
        self.resources.complete = True
        self.counts = Counts()
        for name in clusters:
            self.put(CLUSTER, name)
        for name in listeners:
            self.put(LISTENER, name)
        self.connect()
        self.resources.listen(self._changed)

    def connect(self) -> None:
        self.stream = Stream(self.resources, self.counts)

    def _changed(self, ref: Ref) -> None:
        self.stream.changed(ref)

    def put(self, type_url: str, name: str, payload: bytes = b"1") -> None:
        self.resources.put(Ref(type_url, name), payload)

    def remove(self, type_url: str, name: str) -> None:
        self.resources.remove([Ref(type_url, name)])

    def subscribe(self, type_url: str, *names: str, **versions: str) -> list[Ref]:
        return self.stream.request(Request(type_url=type_url, subscribe=names, versions=versions))

    def sent(self) -> list[Response]:
        return list(self.stream.responses())

    def only(self) -> Response:
        [response] = self.sent()
        return response

    def ack(self, response: Response) -> list[Ref]:
        return self.stream.request(Request(type_url=response.type_url, nonce=response.nonce))

    def nack(self, response: Response, text: str) -> list[Ref]:
        return self.stream.request(
            Request(type_url=response.type_url, nonce=response.nonce, error=text)
        )

    def settle(self) -> None:
        while responses := self.sent():
            for response in responses:
                self.ack(response)


def names(response: Response) -> list[str]:
    return [each.name for each in response.resources]


def connected(*clusters: str, listeners: Iterable[str] = ()) -> Conversation:
    """One whose Envoy has everything."""
    talk = Conversation(clusters, listeners)
    for type_url in (CLUSTER, LISTENER):
        talk.subscribe(type_url)
    talk.subscribe(ENDPOINTS, "none")
    talk.settle()
    return talk


def test_the_first_response_comes_even_if_there_is_nothing() -> None:
    talk = Conversation()

    talk.subscribe(CLUSTER)

    response = talk.only()
    assert (response.resources, response.removed) == ([], [])
    talk.ack(response)
    assert talk.sent() == []


def test_a_change_sends_only_what_has_changed() -> None:
    talk = connected("a", "b", listeners=["x"])

    talk.put(CLUSTER, "b", b"2")
    talk.put(CLUSTER, "a", b"1")

    assert names(talk.only()) == ["b"]


def test_while_a_response_is_under_way_changes_are_collected() -> None:
    talk = connected("a", "b")
    talk.put(CLUSTER, "a", b"2")
    first = talk.only()
    for payload in (b"3", b"4", b"5"):
        talk.put(CLUSTER, "a", payload)
        talk.put(CLUSTER, "b", payload)
    assert talk.sent() == []

    talk.ack(first)

    response = talk.only()
    assert sorted((each.name, each.payload) for each in response.resources) == [
        ("a", b"5"),
        ("b", b"5"),
    ]


def test_a_change_that_is_taken_back_in_time_is_not_sent() -> None:
    talk = connected("a")

    talk.put(CLUSTER, "a", b"2")
    talk.put(CLUSTER, "a", b"1")

    assert talk.sent() == []


def test_removals_are_sent_once() -> None:
    talk = connected("a", "b")

    talk.remove(CLUSTER, "a")

    response = talk.only()
    assert (names(response), response.removed) == ([], ["a"])
    talk.ack(response)
    assert talk.sent() == []
    assert talk.stream.held(CLUSTER).keys() == {"b"}


def test_what_came_and_went_unsent_is_never_mentioned() -> None:
    talk = connected("a")

    talk.put(CLUSTER, "b")
    talk.remove(CLUSTER, "b")

    assert talk.sent() == []


def test_an_envoy_that_comes_back_is_sent_only_what_it_lacks() -> None:
    talk = connected("a", "b", "c")
    had = dict(talk.stream.held(CLUSTER))
    talk.put(CLUSTER, "b", b"2")
    talk.remove(CLUSTER, "c")
    talk.connect()

    decided = talk.subscribe(CLUSTER, **had)

    assert decided == [Ref(CLUSTER, "a")]
    response = talk.only()
    assert (names(response), response.removed) == (["b"], ["c"])


def test_an_envoy_keeps_what_an_agent_does_not_know_yet() -> None:
    talk = connected("a", "b")
    had = dict(talk.stream.held(CLUSTER))
    talk.resources.complete = False
    talk.remove(CLUSTER, "a")
    talk.remove(CLUSTER, "b")
    talk.connect()

    talk.subscribe(CLUSTER, **had)

    first = talk.only()
    assert (names(first), first.removed) == ([], [])
    talk.ack(first)
    talk.put(CLUSTER, "a")
    assert talk.sent() == []
    talk.resources.complete = True
    response = talk.only()
    assert (names(response), response.removed) == ([], ["b"])


def test_clusters_come_before_the_listeners_that_refer_to_them() -> None:
    talk = connected()
    talk.put(LISTENER, "x")
    talk.put(CLUSTER, "a")

    assert [each.type_url for each in talk.sent()] == [CLUSTER, LISTENER]


def test_a_listener_waits_while_clusters_wait() -> None:
    talk = connected("a")
    talk.put(CLUSTER, "a", b"2")
    under_way = talk.only()
    talk.put(CLUSTER, "b")
    talk.put(LISTENER, "x")
    assert talk.sent() == []

    talk.ack(under_way)

    assert [names(each) for each in talk.sent()] == [["b"], ["x"]]


def test_a_cluster_that_is_replaced_gets_its_endpoints_again() -> None:
    talk = connected("a")
    talk.put(ENDPOINTS, "a")
    talk.stream.request(Request(type_url=ENDPOINTS, subscribe=["a"]))
    talk.settle()

    talk.put(CLUSTER, "a", b"2")

    assert [(each.type_url, names(each)) for each in talk.sent()] == [
        (CLUSTER, ["a"]),
        (ENDPOINTS, ["a"]),
    ]


def test_endpoints_are_sent_to_who_asks_for_them() -> None:
    talk = connected("a")
    talk.put(ENDPOINTS, "a")
    talk.put(ENDPOINTS, "other")
    assert talk.sent() == []

    talk.stream.request(Request(type_url=ENDPOINTS, subscribe=["a", "unknown"]))

    response = talk.only()
    assert (names(response), response.removed) == (["a"], ["unknown"])
    talk.ack(response)
    talk.stream.request(Request(type_url=ENDPOINTS, unsubscribe=["a"]))
    talk.put(ENDPOINTS, "a", b"2")
    assert talk.sent() == []


def test_one_bad_resource_does_not_hold_back_the_others() -> None:
    talk = connected()
    for name in ("outbound:127.0.0.1:80", "outbound:127.0.0.1:8080", "outbound:127.0.0.2:80"):
        talk.put(LISTENER, name)
    text = (
        "Error adding/updating listener(s) outbound:127.0.0.1:80:"
        " cannot bind '127.0.0.1:80': Address already in use\n"
    )

    talk.nack(talk.only(), text)

    assert talk.stream.rejections() == {
        Ref(LISTENER, "outbound:127.0.0.1:80"): "cannot bind '127.0.0.1:80': Address already in use"
    }
    assert talk.stream.held(LISTENER).keys() == {
        "outbound:127.0.0.1:8080",
        "outbound:127.0.0.2:80",
    }
    assert talk.sent() == [], "it would be refused again"


def test_each_rejected_resource_has_only_its_own_line_of_what_envoy_says() -> None:
    talk = connected()
    for name in ("outbound:127.0.0.1:80", "outbound:127.0.0.2:80"):
        talk.put(LISTENER, name)

    talk.nack(
        talk.only(),
        "Error adding/updating listener(s) outbound:127.0.0.1:80: cannot bind '127.0.0.1:80':"
        " Address already in use\n"
        "outbound:127.0.0.2:80: cannot bind '127.0.0.2:80': Permission denied\n",
    )

    rejections = talk.stream.rejections()
    assert rejections == {
        Ref(LISTENER, f"outbound:{where}"): f"cannot bind '{where}': {why}"
        for where, why in (
            ("127.0.0.1:80", "Address already in use"),
            ("127.0.0.2:80", "Permission denied"),
        )
    }


def test_a_rejected_resource_is_sent_again_once_it_is_another() -> None:
    talk = connected()
    talk.put(LISTENER, "bad")
    talk.nack(talk.only(), "no good")
    assert talk.stream.rejection(Ref(LISTENER, "bad")) is not None

    talk.put(LISTENER, "bad", b"2")

    assert talk.stream.rejection(Ref(LISTENER, "bad")) is None
    talk.ack(talk.only())
    assert talk.stream.rejections() == {}
    assert talk.stream.accepted(Ref(LISTENER, "bad")) > 0


def test_a_rejection_that_names_nothing_is_narrowed_down_to_what_is_at_fault() -> None:
    talk = connected()
    every = [f"r{number}" for number in range(7)]
    for name in every:
        talk.put(CLUSTER, name)

    for _ in range(20):
        for response in talk.sent():
            bad = "r3" in names(response)
            (talk.nack(response, "proto constraints") if bad else talk.ack(response))

    assert talk.stream.rejections() == {Ref(CLUSTER, "r3"): "proto constraints"}
    assert sorted(talk.stream.held(CLUSTER)) == [name for name in every if name != "r3"]


def test_of_a_message_that_was_cut_the_rest_is_asked_again() -> None:
    talk = connected()
    for name in ("a", "b", "c"):
        talk.put(CLUSTER, name)

    talk.nack(talk.only(), "Error: a: bad, b: ba...(truncated)")

    again = talk.only()
    assert names(again) == ["c"]
    talk.ack(again)
    assert {ref.name for ref in talk.stream.rejections()} == {"a", "b"}


def test_an_answer_to_an_overtaken_response_means_nothing() -> None:
    talk = connected("a")
    talk.put(CLUSTER, "a", b"2")
    response = talk.only()

    decided = talk.stream.request(Request(type_url=CLUSTER, nonce="1", error="old"))

    assert decided == []
    assert talk.stream.rejections() == {}
    assert talk.ack(response) == [Ref(CLUSTER, "a")]


def test_large_sets_are_sent_in_pieces() -> None:
    talk = Conversation([f"c{number}" for number in range(RESOURCES_MAX + 1)])
    talk.subscribe(CLUSTER)

    first = talk.only()
    assert len(first.resources) == RESOURCES_MAX
    talk.ack(first)
    assert len(talk.only().resources) == 1


def test_types_that_are_not_served_are_not_answered() -> None:
    talk = Conversation()

    talk.subscribe("type.googleapis.com/envoy.service.runtime.v3.Runtime")

    assert talk.sent() == []


BAD = b"\0"
_TYPES = st.sampled_from((CLUSTER, LISTENER))
_NAMES = st.sampled_from("abcd")
_STEPS = st.one_of(
    st.tuples(
        st.just("put"),
        st.sampled_from((CLUSTER, LISTENER)),
        _NAMES,
        st.sampled_from((BAD, b"1", b"2")),
    ),
    st.tuples(st.just("remove"), st.sampled_from((CLUSTER, LISTENER)), _NAMES),
    st.tuples(st.just("answer")),
    st.tuples(st.just("reconnect")),
)


class Envoy:
    """Applies what it is sent, and rejects payloads of one kind."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self.held: dict[str, dict[str, tuple[str, bytes]]] = {CLUSTER: {}, LISTENER: {}}
        self.under_way: list[Response] = []

    def subscribe(self) -> None:
        self.under_way.clear()
        for type_url, held in self.held.items():
            versions = {name: version for name, (version, _) in held.items()}
            self.talk.stream.request(Request(type_url=type_url, versions=versions))

    def answer(self) -> bool:
        """The oldest response; False if there is none."""
        self.under_way.extend(self.talk.sent())
        if not self.under_way:
            return False
        response = self.under_way.pop(0)
        held = self.held[response.type_url]
        bad = [each.name for each in response.resources if each.payload == BAD]
        for each in response.resources:
            if each.name not in bad:
                held[each.name] = (each.version, each.payload)
        for name in response.removed:
            held.pop(name, None)
        if bad:
            self.talk.nack(response, "".join(f"{name}: bad\n" for name in bad))
        else:
            self.talk.ack(response)
        return True

    def reconnect(self) -> None:
        self.talk.connect()
        self.subscribe()

    def step(self, step: Sequence[Any]) -> None:
        match step:
            case ("put", type_url, name, payload):
                self.talk.put(type_url, name, payload)
            case ("remove", type_url, name):
                self.talk.remove(type_url, name)
            case ("answer",):
                self.answer()
            case _:
                self.reconnect()


@given(st.lists(_STEPS, max_size=40))
def test_whatever_happens_envoy_ends_with_what_it_is_to_have(steps: list[Sequence[Any]]) -> None:
    talk = Conversation()
    envoy = Envoy(talk)
    envoy.subscribe()

    for step in steps:
        envoy.step(step)
    while envoy.answer():
        pass

    assert not talk.stream.outstanding
    for type_url, held in envoy.held.items():
        present = talk.resources.of(type_url)
        assert held.keys() <= present.keys()
        for name, resource in present.items():
            rejected = talk.stream.rejection(Ref(type_url, name)) is not None
            same = held.get(name) == (resource.version, resource.payload)
            assert rejected if resource.payload == BAD else same
