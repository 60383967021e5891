"""Requests in a form that can be compared however they were joined into runs."""

from __future__ import annotations

from busd.words.requests import Bad, Publish, Request


def flat(requests: list[Request]) -> list[object]:
    """One entry a message of a joined run, one for anything else.

    Checks on the way what every run promises: as many topics as messages, headers announced, a size that suffices.
    """
    return [entry for request in requests for entry in _entries(request)]


def _entries(request: Request) -> list[object]:
    if isinstance(request, Bad):
        return [("BAD", request.error.code, request.error.text, request.unknown, request.eol)]
    if not isinstance(request, Publish):
        return [(type(request).__name__, repr(request))]
    topics = [request.topics] * len(request.items) if isinstance(request.topics, bytes) else list(request.topics)
    assert len(topics) == len(request.items) > 0
    assert request.headers or not any(isinstance(item, list) for item in request.items)
    assert request.size_bytes >= sum(len(b"".join(item) if isinstance(item, list) else item) for item in request.items)
    if request.answers == "first":
        return [("MPUB", request.kind, tuple(topics), tuple(map(repr, request.items)), request.eol)]
    return [("PUB", request.kind, *pair, request.eol) for pair in zip(topics, request.items, strict=True)]
