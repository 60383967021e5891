"""Joining of adjacent publishes: what a client sends message by message goes on as one run.

Knows requests, not bytes.  Invariants:
1. The order of requests and of messages is kept; only neighbours are joined.
2. Joined are plain messages whose answers end alike and are due one for each; everything else stays by itself.
"""

from __future__ import annotations

from busd.words.requests import Publish, Request


def add(requests: list[Request], request: Request) -> None:
    """Put `request` at the end of `requests`, or join it to the run that stands there.  It may be changed later."""
    if type(request) is Publish and requests:
        run = requests[-1]
        if type(run) is Publish and _alike(run, request):
            _join(run, request)
            return
    requests.append(request)


def _alike(run: Publish, more: Publish) -> bool:
    return run.answers == more.answers == "each" and run.kind == more.kind == "message" and run.eol == more.eol


def _join(run: Publish, more: Publish) -> None:
    if not (isinstance(run.topics, bytes) and run.topics == more.topics):
        column = _column(run)
        column += [more.topics] * len(more.items) if isinstance(more.topics, bytes) else more.topics
        run.topics = column
    run.items += more.items
    run.size_bytes += more.size_bytes
    if more.headers:
        run.ids = more.ids or (run.headers and run.ids)
        run.headers = True


def _column(run: Publish) -> list[bytes]:
    """The run's topics as a list of its own; the same list again when it has one, so that joining stays linear."""
    if isinstance(run.topics, bytes):
        return [run.topics] * len(run.items)
    return run.topics if isinstance(run.topics, list) else list(run.topics)
