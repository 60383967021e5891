"""What is told of a run, or of group records, that is not kept or not all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from busd.broker.admission import size_of
from busd.broker.ports import Outcome, Sink
from busd.words.errors import BusError
from busd.words.requests import Publish

# It was met before anything was written.
FAULT = BusError("INTERNAL", "a fault of busd, nothing was kept; its log says more")
# It was met later: nobody can tell.
UNKNOWN = BusError("INTERNAL", "a fault of busd; its log says more")


def refused(run: Publish, first: int, error: BusError) -> Outcome:
    """None of it is kept."""
    count = len(run.items)
    return Outcome(first, count, dict.fromkeys(range(count), error))


def topics_of(run: Publish) -> Sequence[bytes]:
    """Its topics; where it has one a message some may be there again."""
    return (run.topics,) if isinstance(run.topics, bytes) else run.topics


def names_in(run: Publish) -> int:
    """How many `topics_of` are."""
    return 1 if isinstance(run.topics, bytes) else len(run.topics)


def sift(run: Publish, bad: Mapping[bytes, BusError], sink: Sink) -> tuple[Publish | None, Sink]:
    """Take the messages of bad topics out of a run; what has one answer is kept as a whole or not at all.

    Returns:
        The rest as a run of its own, and whom to tell of that: the run's own sink hears of all of it then, at once.
        Without a rest: None, and who says that nothing is kept, whatever the outcome it is given.
    """
    count = len(run.items)
    topics = [run.topics] * count if isinstance(run.topics, bytes) else run.topics
    errors = {at: bad[topic] for at, topic in enumerate(topics) if topic in bad}
    if not errors:
        return run, sink
    if run.answers == "first":
        errors = dict.fromkeys(range(count), next(iter(errors.values())))
    left = [at for at in range(count) if at not in errors]
    if not left:
        return None, lambda outcome: sink(Outcome(outcome.first, count, errors))
    items = [run.items[at] for at in left]
    rest = replace(run, topics=[topics[at] for at in left], items=items, size_bytes=size_of(items))

    def decided(outcome: Outcome) -> None:
        offsets = [0] * count
        for number, at in enumerate(left):
            offsets[at] = outcome.first + number
        told = {left[number]: error for number, error in outcome.errors.items()}
        sink(Outcome(outcome.first, count, {**errors, **told}, outcome.removed, offsets))

    return rest, decided
