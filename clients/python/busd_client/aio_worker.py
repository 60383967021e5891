"""A worker: a handler that is called with each message of a group, some at a time.

Invariants:
1. No more messages are taken than are worked on, unless a larger window was asked for.
2. What the handler did is told at once: returned, it is acknowledged; failed, it is given back with the reason.
3. While it runs its message is touched, three times in each WAIT, so that nobody else gets it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from busd.words.requests import WAIT_NS
from busd_client.aio_group import GroupSubscription
from busd_client.deliveries import Delivery
from busd_client.events import Gap, Retry

Handler = Callable[[Delivery], Awaitable[object]] | Callable[[Delivery], object]
# Touches in each WAIT: one may be late, and a second one lost.
_TOUCHES = 3


class Worker:
    """Calls `handler` for the messages of a subscription; `run` it, `stop` it.

    Args:
        handler: async, or not: then it runs in a thread.  The message it gets is for reading; what becomes of it is
            told by returning (done), by raising Retry (give back, with a delay if wanted) or anything else (give back;
            the server backs off, and after TRIES it is a dead letter).
        concurrency: messages worked on at a time.
        wait_ns: the WAIT of the subscription.
        touch: False to have messages that take longer than WAIT delivered to others.
    """

    def __init__(
        self,
        subscription: GroupSubscription,
        handler: Handler,
        concurrency: int = 1,
        wait_ns: int | None = None,
        touch: bool = True,
    ) -> None:
        self._subscription = subscription
        self._handler = handler
        self._concurrency = concurrency
        self._touch_s = (wait_ns or WAIT_NS) / 1_000_000_000 / _TOUCHES if touch else None
        self._waiting: deque[Delivery] = deque()
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._stopped = asyncio.Event()
        self._cancelling = False
        self._threads: ThreadPoolExecutor | None = None
        if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(type(handler).__call__):
            self._threads = ThreadPoolExecutor(concurrency, "busd-worker")

    @property
    def running(self) -> int:
        """Handlers at work."""
        return len(self._running)

    def stop(self) -> None:
        """Begin no more; `run` returns when the handlers at work are done.  What was not begun is given back then."""
        if not self._stopped.is_set():
            # So that what these finish lets nothing new in, to be given back as a further try.
            self._subscription.drain()
        self._stopped.set()

    async def run(self) -> None:
        """Until the subscription ends, or `stop`.  Cancelled, it cancels the handlers and gives their messages back.

        Raises as the subscription does.
        """
        helpers = [asyncio.ensure_future(self._take()), asyncio.ensure_future(self._stopped.wait())]
        if self._touch_s is not None:
            helpers.append(asyncio.ensure_future(self._touching(self._touch_s)))
        try:
            # The touching never ends, unless by a fault.
            await asyncio.wait(helpers, return_when=asyncio.FIRST_COMPLETED)
            for done in helpers:
                if done.done():
                    done.result()
            while self._running:
                await asyncio.wait(self._running)
        finally:
            tasks = [*helpers, *self._running]
            self._stopped.set()
            self._cancelling = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
            await self._subscription.close()

    async def _take(self) -> Literal[True]:
        # Read ahead, up to the window: then a lost connection is seen while all handlers are at work.
        async for event in self._subscription:
            if isinstance(event, Delivery):
                self._waiting.append(event)
                self._begin()
            elif isinstance(event, Gap):
                self._subscription.gaps.append(event)
        return True

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._concurrency and not self._stopped.is_set():
            delivery = self._waiting.popleft()
            if not delivery.lost:
                task = asyncio.ensure_future(self._work(delivery))
                self._running[task] = delivery
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._begin()

    async def _work(self, delivery: Delivery) -> None:
        try:
            if self._threads is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._handler, delivery)
            else:
                await self._handler(delivery)  # type: ignore[misc]
        except Retry as again:
            delivery.nack(again.delay, again.reason)
        except (Exception, asyncio.CancelledError) as error:
            if self._cancelling and isinstance(error, asyncio.CancelledError):
                raise
            # Whatever it was: it is the handler's, and the reason of the dead letter if it comes to that.
            delivery.nack(None, f"{type(error).__name__}: {error}")
        else:
            delivery.ack()

    async def _touching(self, every_s: float) -> Literal[True]:
        while True:
            await asyncio.sleep(every_s)
            # When stopped, what was not begun may go to others sooner.
            held = [] if self._stopped.is_set() else self._waiting
            for delivery in (*self._running.values(), *held):
                delivery.touch()
