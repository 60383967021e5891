"""A blocking consumer of a group that waits for a time gets away in time, whatever the server does or does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from busd_client import channel, channel_place
from busd_client.address import choose_address
from busd_client.backoff import Backoff
from busd_client.group_stream import GroupWish
from busd_client.sync_group import GroupSubscription

from tests.support.certificates import certificates
from tests.support.scripted import HELLO_REPLY
from tests.unit.test_client_stream import push

JOINED = HELLO_REPLY + b"+OK next=1 epoch=1\r\n"
# What a machine that others use may add to a wait.
SLACK_S = 2.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """It takes connections, as far as the kernel does that for it, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(10)
        yield sock


def subscription(listener: socket.socket) -> GroupSubscription:
    host, port = listener.getsockname()
    return GroupSubscription(choose_address(f"{host}:{port}", {}), GroupWish("t", "g"))


def took_s(work: Callable[[], object]) -> float:
    """In a thread, so that what waits for ever fails the test."""
    began_s = time.monotonic()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for ever"
    return time.monotonic() - began_s


def accepted(listener: socket.socket, say: bytes = JOINED) -> socket.socket:
    """The next connection, answered."""
    sock, _ = listener.accept()
    sock.sendall(say)
    return sock


def test_a_server_that_never_answers_is_left_in_time_and_the_next_call_goes_on(listener: socket.socket) -> None:
    jobs = subscription(listener)
    found: list[Any] = []
    assert 0.2 <= took_s(lambda: found.append(jobs.more(0.2))) < SLACK_S
    assert took_s(lambda: found.append(jobs.more(0.0))) < SLACK_S
    assert found == [[], []]
    with accepted(listener, JOINED + push(b"END", b"limit", 1)):
        assert took_s(lambda: found.append(jobs.more(5))) < SLACK_S
        assert jobs.ended is not None, "the same connection was waited for"
    jobs.close()


def test_after_a_lost_connection_no_pause_and_no_silence_is_longer_than_the_time_given(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = subscription(listener)
    accepted_ = threading.Thread(target=lambda: accepted(listener).close(), daemon=True)
    accepted_.start()
    jobs.start()
    accepted_.join()
    # A pause as long as after many attempts.
    monkeypatch.setattr(Backoff, "next_s", lambda self: 30.0)
    found: list[Any] = []
    for _ in range(3):
        assert 0.1 <= took_s(lambda: found.append(jobs.more(0.1))) < SLACK_S
    assert found == [[], [], []]
    monkeypatch.setattr(jobs, "_again_s", time.monotonic())
    assert 0.1 <= took_s(lambda: found.append(jobs.more(0.1))) < SLACK_S, "connected, and nothing is said"
    with accepted(listener):
        assert 0.1 <= took_s(lambda: found.append(jobs.more(0.1))) < SLACK_S
        assert jobs.epoch == 1
    assert found == [[]] * 5
    jobs.close()


def test_what_comes_with_the_answer_to_a_second_join_is_not_waited_behind(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.0)
    jobs = subscription(listener)

    def serve() -> None:
        accepted(listener).close()
        told.append(accepted(listener, JOINED + push(b"GAP", b"t", 1, 2, 2, b"trimmed")))

    told: list[socket.socket] = []
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    found: list[Any] = []
    assert took_s(lambda: found.append(jobs.more(5))) < SLACK_S
    server.join()
    assert [len(parts) for parts in found] == [1]
    jobs.close()
    told[0].close()


def test_a_handshake_that_is_never_answered_is_left_in_time(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    address = choose_address(f"tls:127.0.0.1:{port}", {}, cafile=str(certificates(tmp_path).ca))
    jobs = GroupSubscription(address, GroupWish("t", "g"))
    found: list[Any] = []
    assert took_s(lambda: found.append(jobs.more(0.1))) < SLACK_S
    assert found == [[]]


def test_a_receiver_of_a_channel_gets_away_in_time(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_place, "_STOP_S", 0.5)
    with socket.socket(socket.AF_UNIX) as silent:
        (short_dir / "jobs").mkdir()
        silent.bind(str(short_dir / "jobs" / "busd.sock"))
        silent.listen(100)
        _, receiver = channel("jobs", short_dir)
        failures: list[BaseException] = []

        def receive() -> None:
            try:
                receiver.receive(0.2)
            except TimeoutError as error:
                failures.append(error)

        assert 0.2 <= took_s(receive) < SLACK_S
        assert str(failures[0]) == "nothing came in 0.2 s"
        receiver.close()
