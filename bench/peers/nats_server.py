"""nats-server: subjects (core), and JetStream with file storage."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Sequence
from typing import Any

from bench.load import Counting, Sink, ask
from bench.peers.base import Peer
from bench.plan import WrongAnswer

COMMAND = "nats-server"
STREAM = "BENCH"
INBOX = b"_INBOX.bench"
# One message a subject and connection may wait this long before nats-server calls it slow.
_CONFIG = """\
host: 127.0.0.1
port: %d
max_pending: 1GB
write_deadline: "60s"
max_connections: 20000
ping_interval: "10m"
%s
"""
_JETSTREAM = "jetstream { store_dir: %s, max_file_store: 100GB }"


class Nats(Peer):
    """JetStream with file storage, or core when the policy is `none`.

    JetStream answers what it has written, and syncs every two minutes: it is compared where nothing more is asked.
    """

    system = "nats"

    def command(self) -> list[str]:
        """Its defaults, but for limits that would cut off a subscriber under the load."""
        config = self.base / "nats.conf"
        jetstream = "" if self.policy == "none" else _JETSTREAM % json.dumps(str(self.base / "jetstream"))
        config.write_text(_CONFIG % (self.port, jetstream))
        return [COMMAND, "-c", str(config), *self.settings]

    def ready(self, sock: socket.socket) -> bool:
        """See Peer."""
        return self._greeted(sock)

    def check_policy(self) -> None:
        """See Peer: storage and acknowledgement of the stream; there is no policy to ask for."""
        if self.policy != "none":
            config = self._api(f"STREAM.INFO.{STREAM}")["config"]
            if config["storage"] != "file" or config.get("no_ack"):
                raise WrongAnswer(f"nats says {config}")

    def prepare(self, topics: Sequence[bytes]) -> None:
        """The stream that keeps these subjects."""
        if self.policy != "none":
            subjects = sorted({topic.decode().split(".")[0] for topic in topics})
            names = [name for one in subjects for name in (one, f"{one}.>")]
            self._api(f"STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": names, "storage": "file"})

    def publisher(self) -> socket.socket:
        """With an inbox for the answers."""
        sock = self.connect()
        self._greeted(sock)
        ask(sock, b"SUB %b 1\r\nPING\r\n" % INBOX, b"PONG\r\n")
        return sock

    def publish(self, topic: bytes, payload: bytes) -> bytes:
        """`PUB` with the inbox for the acknowledgement; core has none."""
        reply = b"" if self.policy == "none" else INBOX + b" "
        return b"PUB %b %b%d\r\n%b\r\n" % (topic, reply, len(payload), payload)

    def answers(self, count: int, alone: bool = True) -> Sink:
        """`{"stream":"BENCH", "seq":7}`: one brace each; an error has two, and its word."""
        return Counting(0 if self.policy == "none" else count, b"}", bad=b"error")

    def kept(self, topics: Sequence[bytes]) -> int:
        """See Peer: messages of the stream."""
        return int(self._api(f"STREAM.INFO.{STREAM}")["state"]["messages"])

    def tail(self, topic: bytes, count: int, number: int) -> bytes:
        """See Peer; the messages come one by one."""
        found = [self._api(f"STREAM.MSG.GET.{STREAM}", {"seq": one}) for one in range(count - number + 1, count + 1)]
        return b"\n".join([base64.b64decode(one["message"]["data"]) for one in found])

    def subscriber(self, subject: bytes) -> socket.socket:
        """A connection with the subscription 1, in force."""
        sock = self.connect()
        self._greeted(sock)
        ask(sock, b"SUB %b 1\r\nPING\r\n" % subject, b"PONG\r\n")
        return sock

    def consumer(self, deliver: bytes) -> bytes:
        """The request for a consumer that is sent the whole stream at once and acknowledges nothing."""
        config = {"deliver_subject": deliver.decode(), "deliver_policy": "all", "ack_policy": "none"}
        body = json.dumps({"stream_name": STREAM, "config": config}).encode()
        return b"PUB $JS.API.CONSUMER.CREATE.%b %d\r\n%b\r\n" % (STREAM.encode(), len(body), body)

    @staticmethod
    def message(subject: bytes, payload: bytes) -> bytes:
        """How a subscriber receives it."""
        return b"MSG %b 1 %d\r\n%b\r\n" % (subject, len(payload), payload)

    @staticmethod
    def _greeted(sock: socket.socket) -> bool:
        """CONNECT, and everything of the greeting received."""
        return ask(sock, b'CONNECT {"verbose":false}\r\nPING\r\n', b"PONG\r\n").startswith(b"INFO ")

    def _api(self, name: str, body: dict[str, Any] | None = None) -> Any:
        """A request to JetStream.  Raises WrongAnswer for an error."""
        data = json.dumps(body).encode() if body else b""
        with self.publisher() as sock:
            told = ask(sock, b"PUB $JS.API.%b %b %d\r\n%b\r\n" % (name.encode(), INBOX, len(data), data), b"}\r\n")
        found = re.search(rb"\r\n(\{.*\})\r\n$", told, re.S)
        answer = json.loads(found[1]) if found else {"error": told.decode("utf-8", "replace")}
        if "error" in answer:
            raise WrongAnswer(f"nats, {name}: {answer['error']}")
        return answer
