"""What the server tells whoever runs it: one line an event, on stderr, for people or as JSON.

An event is something a person may have to act on, or needs to know afterwards; what a client did wrong is told to the
client.  Invariants:
1. One event is one line, also a traceback in JSON.
2. What clients can cause again and again comes at most once a minute, with how often (`Seldom`).
3. All that goes through `logging` comes out the same way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

import busd

Form = Literal["text", "json"]
# Who floods us must not flood the log.
_SELDOM_S = 60.0

events: FilteringBoundLogger = structlog.get_logger("busd")


def configure(form: Form, stream: TextIO = sys.stderr) -> None:
    """Send events, and what goes through `logging` from warnings on, to a stream."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "json":
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        last += [structlog.processors.format_exc_info, _text]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("busd").setLevel(logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _text(logger: WrappedLogger, name: str, event: EventDict) -> str:
    """`busd 0.1.0: event, name value, …`; anything but news says its level."""
    event.pop("time", None)
    level = event.pop("level", "info")
    trace = event.pop("exception", None)
    words = [str(event.pop("event")), *(f"{name} {value}" for name, value in event.items())]
    said = "" if level == "info" else f"{level}: "
    line = f"busd {busd.__version__}: {said}{', '.join(words)}".replace("\n", " ")
    return f"{line}\n{trace}" if trace else line


class Seldom:
    """Lets an event through once a minute, with how many there were since the last one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def warning(self, event: str, **facts: object) -> None:
        """Tell it, or count it."""
        now_s = self._clock()
        self._count[event] = self._count.get(event, 0) + 1
        if now_s - self._last_s.get(event, -_SELDOM_S) >= _SELDOM_S:
            self._last_s[event] = now_s
            events.warning(event, **facts, times=self._count.pop(event))
