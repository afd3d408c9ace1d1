"""The fault proxy does what its faults are called."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.chaos.faultproxy import HOST, FaultProxy, Link

SHORT_S = 0.2
LONG_S = 5.0


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets, and ends when its client has."""
    with socket.create_server((HOST, 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(1024):
                        connection.sendall(data)
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(echo: int) -> Iterator[Link]:
    proxy = FaultProxy()
    yield proxy.link("client", echo)
    proxy.close()


def connect(link: Link) -> socket.socket:
    return socket.create_connection((HOST, link.port), timeout=LONG_S)


def says(connection: socket.socket, data: bytes, timeout_s: float = LONG_S) -> bytes | None:
    """What comes back; None if nothing does."""
    connection.settimeout(timeout_s)
    try:
        if data:
            connection.sendall(data)
        return connection.recv(1024)
    except TimeoutError:
        return None


def served(link: Link) -> bool:
    try:
        with closing(connect(link)) as connection:
            return bool(says(connection, b"new"))
    except ConnectionError:
        return False


def test_without_a_fault_everything_arrives_and_is_counted(link: Link) -> None:
    with closing(connect(link)) as connection:
        assert says(connection, b"hello") == b"hello"

        # Counted before it is sent: what has arrived is in it.
        assert link.sent == {"up": 5, "down": 5}


def test_a_cut_link_resets_what_is_open_and_what_comes_until_it_is_healed(link: Link) -> None:
    with closing(connect(link)) as connection:
        assert says(connection, b"hello")
        link.cut()
        with pytest.raises(ConnectionError):
            says(connection, b"more")
    assert not served(link)

    link.heal()

    with closing(connect(link)) as connection:
        assert says(connection, b"again") == b"again"


def test_a_held_link_loses_nothing_but_time(link: Link) -> None:
    with closing(connect(link)) as connection:
        link.hold()
        assert says(connection, b"late", SHORT_S) is None

        link.heal()

        assert says(connection, b"") == b"late"


def test_one_way_may_be_held_alone(link: Link) -> None:
    with closing(connect(link)) as connection:
        link.hold("down")
        assert says(connection, b"heard", SHORT_S) is None
        assert link.sent == {"up": 5, "down": 0}

        link.heal()

        assert says(connection, b"") == b"heard"


def test_a_reset_link_serves_the_next_connection(link: Link) -> None:
    with closing(connect(link)) as connection:
        assert says(connection, b"hello")
        link.reset()
        with pytest.raises(ConnectionError):
            says(connection, b"more")

    with closing(connect(link)) as connection:
        assert says(connection, b"new") == b"new"


def test_a_half_closed_connection_ends_for_the_one_side_only(link: Link) -> None:
    with closing(connect(link)) as connection:
        assert says(connection, b"hello")

        link.half_close("down")

        assert says(connection, b"") == b""
        connection.sendall(b"still sent")


def test_a_flapping_link_serves_now_and_then(link: Link) -> None:
    link.flap(0.02)

    answered = refused = 0
    while not (answered and refused):
        if served(link):
            answered += 1
        else:
            refused += 1


def test_a_link_may_lead_to_another_server(link: Link) -> None:
    with socket.create_server((HOST, 0)) as other, closing(connect(link)) as connection:
        assert says(connection, b"hello")
        link.lead_to(other.getsockname()[1])
        with pytest.raises(ConnectionError):
            says(connection, b"more")

        with closing(connect(link)) as again:
            served, _ = other.accept()
            served.sendall(b"other")
            served.close()
            assert says(again, b"") == b"other"
