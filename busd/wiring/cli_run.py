"""`busd run`: a command for each message of a group.

Invariants:
1. A message is acknowledged when its command ended with 0, and given back in any other case.
2. Every command has a process group of its own, so that a signal to us or Ctrl-C does not end it half-way.
3. Nothing of a message reaches a shell: the payload is standard input, the rest are variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

import click
from busd_client import aio
from busd_client.address import Address
from busd_client.deliveries import Delivery
from busd_client.events import Retry
from busd_client.group_stream import GroupWish

from busd.wiring.cli import Failure, complain
from busd.wiring.cli_common import address_option, group_option, member_options, reaching

# EX_TEMPFAIL of sysexits.h: not now.
LATER = 75
_NO_NAME = re.compile(r"[^A-Z0-9]")


@click.command()
@click.argument("pattern")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]…")
@group_option(required=True, text="The group whose messages these are; several `busd run` may share it.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="N at a time.")
@click.option("--from", "start", metavar="POS", help="Where a new group begins (first).")
@click.option("--until-eof", is_flag=True, help="Stop when the topics, named without * and >, have ended.")
@member_options
@address_option
def run(
    pattern: str,
    command: tuple[str, ...],
    group: str,
    jobs: int,
    start: str | None,
    until_eof: bool,
    wait: int | None,
    tries: int | None,
    address: Address,
) -> int:
    """Run COMMAND for each message of PATTERN (several joined by commas), with the payload on standard input.

    \b
    BUSD_TOPIC BUSD_OFFSET BUSD_TRY BUSD_TIME BUSD_GROUP    variables of COMMAND; the time in Unix ns
    BUSD_HEADER_<NAME>                                      a header; - of its name as _
    BUSD_ADDRESS                                            the server, for `busd pub` in it

    \b
    What its exit status does
      0      the message is done
      75     not now: it comes again, after 1s, 2s, 4s, … 5m
      other  the same, and it is told on stderr; so is a command that cannot be started
    After --tries deliveries it does not come again, but goes to _dead.<group>.<topic>, with the reason `exit 3` or
    `signal 9`.

    A message is this command's as long as it runs.  On SIGTERM or SIGINT nothing new is begun and what runs may end;
    on the second one it is killed and its messages go back.  When the server goes, it is waited for.

    \b
    busd run 'jobs.>' --group mail --jobs 4 --tries 5 -- sendmail -t
    """
    if shutil.which(command[0]) is None:
        raise Failure(f"{command[0]}: there is no such command")
    try:
        wish = GroupWish(pattern, group, start, None, None, jobs, wait, tries, until_eof)
    except ValueError as error:
        raise click.UsageError(f"--until-eof: {error}") from None
    return asyncio.run(_Runner(address, wish, command).run())


@dataclass(slots=True)
class _Runner:
    """One run."""

    address: Address
    wish: GroupWish
    command: tuple[str, ...]
    processes: set[asyncio.subprocess.Process] = field(default_factory=set)
    stopping: int = 0

    async def run(self) -> int:
        """Returns the exit status."""
        async with aio.Client(self.address) as client:
            subscription = client.join(self.wish, on_lost=self._reconnecting)
            with reaching(self.address):
                await subscription.start()
            worker = aio.Worker(subscription, self._work, self.wish.window, self.wish.wait_ns)
            working = asyncio.ensure_future(worker.run())
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stop, worker, working)
            try:
                await asyncio.wait((working,))
                if not working.cancelled():
                    working.result()
            finally:
                self._kill()
            return 128 + signal.SIGTERM if working.cancelled() else 0

    def _stop(self, worker: aio.Worker, working: asyncio.Task[None]) -> None:
        self.stopping += 1
        worker.stop()
        if self.stopping > 1:
            working.cancel()
        elif worker.running:
            complain(f"waiting for {worker.running} to end; once more kills them")

    def _kill(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def _work(self, delivery: Delivery) -> None:
        environ = {**os.environ, **variables(delivery, self.wish.group), "BUSD_ADDRESS": str(self.address)}
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, env=environ, process_group=0
            )
        except OSError as error:
            reason = f"{self.command[0]}: {error.strerror or error}"
            complain(f"{delivery.topic} {delivery.token}: {reason}, given back")
            raise Retry(None, reason) from None
        self.processes.add(process)
        try:
            await process.communicate(delivery.payload)
        except asyncio.CancelledError:
            self._kill()
            raise
        finally:
            self.processes.discard(process)
        if delivery.lost:
            complain(
                f"{delivery.topic} {delivery.token}: the connection was lost meanwhile, so the message comes again"
            )
        status = process.returncode or 0
        if status == 0:
            return
        reason = f"exit {status}" if status > 0 else f"signal {-status}"
        if status != LATER:
            complain(f"{delivery.topic} {delivery.token}: {reason}, given back")
        raise Retry(None, reason)

    def _reconnecting(self, error: OSError) -> None:
        complain(f"{self.address}: {error}; connecting again")


def variables(delivery: Delivery, group: str) -> Mapping[str, str]:
    """What a command is told of its message, but the payload."""
    headers = {f"BUSD_HEADER_{_NO_NAME.sub('_', name.upper())}": value for name, value in delivery.headers.items()}
    return {
        **headers,
        "BUSD_TOPIC": delivery.topic,
        "BUSD_OFFSET": str(delivery.offset),
        "BUSD_TRY": str(delivery.tries),
        "BUSD_TIME": str(delivery.time_ns),
        "BUSD_GROUP": group,
    }
