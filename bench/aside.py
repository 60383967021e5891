"""A second load beside the one that is measured, in a process of its own.

It is nicer than the other, so that where both want the loader's core the measured one gets it: what is measured is
the server's delay, not the loader's.  Invariants:
1. It has prepared everything when `beside` begins its block, and its load begins then.
2. When it fails, so does the block.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection

from bench.load import Lane, drive
from bench.plan import WrongAnswer

NICER = 10
READY_S = 120.0


@contextlib.contextmanager
def beside(prepare: Callable[[ExitStack], list[Lane]]) -> Iterator[Callable[[], bool]]:
    """Drive the lanes that `prepare` makes (in the other process) until they are done; gives "is it still at it?".

    Raises:
        WrongAnswer: something there did not come as it should.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(theirs, prepare), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(READY_S) or ours.recv() != "ready":
            raise WrongAnswer("the load beside could not be prepared; it said why above")
        ours.send("go")
        yield lambda: not ours.poll()
        if not ours.poll(READY_S) or ours.recv() != "done":
            raise WrongAnswer("the load beside failed; it said why above")
    finally:
        process.kill()
        process.join()
        ours.close()


def _work(pipe: Connection, prepare: Callable[[ExitStack], list[Lane]]) -> None:
    os.nice(NICER)
    with ExitStack() as stack:
        lanes = prepare(stack)
        pipe.send("ready")
        pipe.recv()
        drive(lanes)
        pipe.send("done")
