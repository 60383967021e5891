"""A blocking client that is interrupted, by Ctrl-C or the handler of a signal, against a scripted server."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from busd_client import ConnectionLost, sync
from busd_client.address import choose_address
from busd_client.group_stream import GroupWish
from busd_client.sync_group import GroupSubscription

from tests.support.scripted import HELLO_REPLY
from tests.support.tools import LOOK_S
from tests.unit.test_client_stream import push

JOINED = HELLO_REPLY + b"+OK next=1 epoch=1\r\n"


class Interrupted(Exception):
    """What the handler of the signal raises."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Interrupts the test, from another thread: the handler of a signal raises Interrupted there, once."""
    tested, raised = threading.get_ident(), threading.Event()

    def handle(*_: object) -> None:
        if not raised.is_set():
            raised.set()
            raise Interrupted

    def call() -> None:
        # A signal just before the call that waits is seen behind it.
        while not raised.is_set():
            signal.pthread_kill(tested, signal.SIGUSR1)
            raised.wait(LOOK_S)

    before = signal.signal(signal.SIGUSR1, handle)
    yield call
    signal.signal(signal.SIGUSR1, before)


@contextlib.contextmanager
def met(listening: socket.socket, answer: bytes) -> Iterator[socket.socket]:
    """The next who connects, once its first words were answered so."""
    with listening.accept()[0] as peer:
        peer.settimeout(10)
        peer.recv(1000)
        peer.sendall(answer)
        yield peer


@contextlib.contextmanager
def slow_server(interrupt: Callable[[], None]) -> Iterator[str]:
    """It has the first command interrupted instead of answering it, and answers that first when a second one comes by
    the same connection; by the next connection it answers `:2`."""

    def serve() -> None:
        with met(listening, HELLO_REPLY) as first:
            first.recv(1000)
            interrupt()
            while first.recv(1000):
                first.sendall(b":1\r\n:2\r\n")
        with met(listening, HELLO_REPLY) as second:
            second.recv(1000)
            second.sendall(b":2\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "ask",
    [
        lambda busd: busd.publish("t", b"1"),
        lambda busd: busd.publish("t", b"1", retry=True),
        lambda busd: list(busd.publish_all([("t", b"1")])),
    ],
    ids=["publish", "with retry", "publish_all"],
)
def test_an_interrupted_command_does_not_leave_its_answer_to_the_next(
    ask: Callable[[sync.Client], object], interrupt: Callable[[], None]
) -> None:
    with slow_server(interrupt) as address, sync.connect(address, timeout_s=10) as busd:
        with pytest.raises(Interrupted):
            ask(busd)
        assert busd.publish("t", b"2") == 2


class Half:
    """A socket at which one call is interrupted when half of it is done."""

    def __init__(self, sock: socket.socket, call: str) -> None:
        self._sock = sock
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        """Half of the data leaves."""
        if self._call == "sendall":
            self._sock.sendall(data[: len(data) // 2])
            raise Interrupted
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        """What came is lost."""
        data = self._sock.recv(size)
        if self._call == "recv":
            raise Interrupted
        return data


@pytest.mark.parametrize("call", ["sendall", "recv"])
def test_a_member_that_was_interrupted_joins_again(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        host, port = listening.getsockname()
        lost: list[OSError] = []
        address = choose_address(f"{host}:{port}", {})
        jobs = GroupSubscription(address, GroupWish("t", "g", window=2), on_lost=lost.append)
        heads: list[bytes] = []

        def serve() -> None:
            for offset in (1, 2):
                peer = held.enter_context(listening.accept()[0])
                heads.append(peer.recv(1000))
                peer.sendall(JOINED + push(b"MSG", b"t", offset, 7, b"x"))
                peers.append(peer)

        peers: list[socket.socket] = []
        with contextlib.ExitStack() as held:
            server = threading.Thread(target=serve, daemon=True)
            server.start()
            (first,) = jobs.more(10)
            monkeypatch.setattr(jobs, "_sock", Half(jobs._sock, call))  # type: ignore[arg-type]
            peers[0].sendall(push(b"GAP", b"t", 2, 2, 1, b"trimmed"))

            def work() -> None:
                first.ack()  # type: ignore[union-attr]
                jobs.more(10)

            with pytest.raises(Interrupted):
                work()
            with pytest.raises(ConnectionLost, match="interrupted"):
                jobs.flush()
            (second,) = jobs.more(10)
            server.join(10)
            assert (second.offset, len(heads), len(lost)) == (2, 2, 1)  # type: ignore[union-attr]
            jobs.close()


def test_a_member_that_is_interrupted_while_it_waits_stays(interrupt: Callable[[], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        host, port = listening.getsockname()
        jobs = GroupSubscription(choose_address(f"{host}:{port}", {}), GroupWish("t", "g"), reconnect=False)
        waiting = threading.Event()

        def serve() -> None:
            with met(listening, JOINED) as peer:
                waiting.wait(10)
                interrupt()
                # Only who has been interrupted says so, by an UNSUB.
                assert peer.recv(1000)
                peer.sendall(b"+OK\r\n" + push(b"END", b"drained", 1))
                peer.recv(1000)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        jobs.start()

        def wait() -> None:
            waiting.set()
            jobs.more()

        with pytest.raises(Interrupted):
            wait()
        jobs.drain()
        assert jobs.more() == []
        assert jobs.ended is not None
        jobs.close()
        server.join(20)
        assert not server.is_alive()
