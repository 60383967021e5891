"""`busd check`: it sees nothing wrong where nothing is, and everything that is; and it proves kill -9 under load."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from busd_client.events import Message

from busd.wiring.cli import Failure
from busd.wiring.cli_check import Journal, Judge, payload_of, read_journal
from tests.conftest import Cases, MakeServer
from tests.support.commands import BUSD
from tests.support.tools import environment, run, until

ROUNDS = int(os.environ.get("BUSD_KILL_ROUNDS", "10"))
SEEN = [(0, 5), (1, 6), (3, 9)]


def received(*changes: Callable[[list[Message]], None]) -> list[Message]:
    """Three messages of a run of four, one of another run, changed."""
    found = [Message("t", offset, 0, payload_of("run", number)) for number, offset in SEEN]
    found.insert(1, Message("t", 4, 0, b"other 3 00000000 "))
    for change in changes:
        change(found)
    return found


def journal() -> Journal:
    """0 and 1 were answered, 2 refused, of 3 nothing was heard."""
    return Journal("run", "t", 4, {0: 5, 1: 6}, {2})


def verdict(found: list[Message], again: bool = False) -> list[str]:
    judge = Judge(journal())
    for message in found:
        judge.take(message, again)
    return judge.verdict()


def test_nothing_is_wrong() -> None:
    assert verdict(received()) == []
    assert verdict([*received(), received()[0]], again=True) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop(0), "number 0: answered as offset 5, and missing"),
        (lambda found: found.append(found[0]), "number 0: twice"),
        (lambda found: found.reverse(), "number 1: after 3"),
        (lambda found: found.append(Message("t", 10, 0, payload_of("run", 2))), "number 2 was refused, and is there"),
        (lambda found: found.append(Message("t", 10, 0, payload_of("run", 7))), "number 7 was never sent"),
        (lambda found: found.append(Message("t", 10, 0, b"run 3")), "not as it was sent"),
        (lambda found: found.append(Message("t", 10, 0, payload_of("run", 5)[:-1])), "not as it was sent"),
        (lambda found: found.__setitem__(0, found[0]._replace(offset=4)), "answered as offset 5, found at 4"),
    ],
)
def test_everything_wrong_is_seen(change: Callable[[list[Message]], None], said: str) -> None:
    assert said in "\n".join(verdict(received(change)))


def test_a_journal_that_was_cut_off_and_one_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("run a t\nsent 0 9\nok 0 5\nrefused 1 FULL\nok 2 7\nok 3")
    assert read_journal(str(path)) == Journal("a", "t", 10, {0: 5, 2: 7}, {1})
    for text in ("", "hello\n", "sent 0 9\n", "run a t\nsent 0 x\n", "run a t\nok x y\n", "run a t\nrefused x FULL\n"):
        path.write_text(text)
        with pytest.raises(Failure, match="is not a journal"):
            read_journal(str(path))


def answers(journal: str) -> int:
    """How many were answered so far."""
    return Path(journal).read_bytes().count(b"\nok ") if Path(journal).exists() else 0


def grown(journals: list[str], known: list[int]) -> bool:
    """Whether more was answered, in each of them."""
    return all(answers(journal) > count for journal, count in zip(journals, known, strict=True))


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_kill_9_under_load(make_server: MakeServer, tmp_path: Path, cases: Cases) -> None:
    """Publishers and members that anyone can run go on over kills of the server; then all of it is proved."""
    server = make_server("--segment-bytes", "256k")
    env = environment({"BUSD_ADDRESS": server.address})
    journals = [str(tmp_path / name) for name in ("one", "two")]
    commands = [
        [*BUSD, "check", "produce", f"check.{n}", "--journal", journal, "--for", "10m", "--burst", burst]
        for n, (journal, burst) in enumerate(zip(journals, ("1", "200"), strict=True))
    ]
    producers = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for command in commands]
    chance = random.Random(7)
    try:
        for _ in range(ROUNDS):
            # Both are at work again; the kill comes in the middle of it.
            known = [answers(journal) for journal in journals]
            until(partial(grown, journals, known), "answers", 60)
            time.sleep(chance.uniform(0, 0.2))
            server.kill()
            server.start()
            cases.add()
    finally:
        for producer in producers:
            producer.send_signal(signal.SIGKILL)
            producer.wait()
    for journal in journals:
        assert len(read_journal(journal).answered) > ROUNDS, "nothing was tested"
    both = [word for journal in journals for word in ("--journal", journal)]
    told = run([*BUSD, "check", "consume", *both], env={"BUSD_ADDRESS": server.address}).stdout
    assert told.count(b"none missing, none doubled, none invented") == 2
    for group in ("first", "second"):
        words = ["--journal", journals[1], "--group", group]
        told = run([*BUSD, "check", "consume", *words], env={"BUSD_ADDRESS": server.address}).stdout
        assert b"none missing" in told
    with open(journals[0], "a", encoding="ascii") as file:
        file.write("ok 99999999 1\n")
    told = run([*BUSD, "check", "consume", *both], env={"BUSD_ADDRESS": server.address}, status=1).stderr
    assert b"number 99999999: answered as offset 1, and missing" in told
