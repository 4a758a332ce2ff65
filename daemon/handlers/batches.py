"""Several files in one run of a program, where the protocol hands over one at a time.

Nothing waits for a batch to fill: a file that comes while there is a free place goes at once, with
those that came in the same turn of the loop. While all places are taken the others gather.
"""

import asyncio
from collections import deque
from functools import partial
from itertools import islice

from daemon.handlers import Job, Outcome
from daemon.handlers.command import CommandHandler

# Of these no file is the cause, so that to try each alone would tell nothing.
_OF_ALL = frozenset({"success", "defer", "unavailable"})


class _Member:
    """A file on its way: `withdrawn` as often as its run was cancelled."""

    __slots__ = ("job", "outcome", "run", "withdrawn")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.withdrawn = 0
        self.run: _Run | None = None
        self.outcome: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()


class _Run:
    """A run of the program, for one file or several. `pushed` as hard as the hastiest member."""

    __slots__ = ("members", "pushed", "task")

    def __init__(self, members: list[_Member], task: "asyncio.Task[Outcome]") -> None:
        self.members = members
        self.task = task
        self.pushed = 0
        for member in members:
            member.run = self

    def push(self, strength: int) -> None:
        """What ends a program: each cancellation is a harder push than the one before."""
        while self.pushed < strength:
            self.pushed += 1
            self.task.cancel()


class BatchHandler:
    """A `Handler` that runs up to `size` files together, in at most `places` runs at a time.

    Success is success for all. After any other end each file is tried again alone, and that outcome
    is the one that counts: a failed batch spends nobody's attempt.
    """

    def __init__(self, program: CommandHandler, *, size: int, places: int) -> None:
        self._program = program
        self._size = size
        self._places = places
        self._waiting: deque[_Member] = deque()
        # Members of a batch that failed.
        self._alone: deque[_Member] = deque()
        self._runs: set[_Run] = set()
        self._called = False

    async def run(self, job: Job) -> Outcome:
        """See `Handler`. Cancelling one file ends its batch; the others are tried again alone."""
        member = _Member(job)
        self._waiting.append(member)
        self._call()
        cancelled: asyncio.CancelledError | None = None
        while not member.outcome.done():
            try:
                await asyncio.wait((member.outcome,))
            except asyncio.CancelledError as error:
                cancelled = error
                self._withdraw(member)
        outcome = member.outcome.result()
        if cancelled is not None or outcome is None:
            raise cancelled or asyncio.CancelledError
        return outcome

    async def close(self) -> None:
        """See `Handler`."""
        await self._program.close()

    def _withdraw(self, member: _Member) -> None:
        member.withdrawn += 1
        if member.run is not None:
            member.run.push(member.withdrawn)
            return
        # In the same turn it may have been given its outcome.
        for queue in (self._waiting, self._alone):
            if member in queue:
                queue.remove(member)
        if not member.outcome.done():
            member.outcome.set_result(None)

    def _call(self) -> None:
        """Begin runs at the next turn of the loop: who else comes in this one goes with them."""
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._called = False
        while len(self._runs) < self._places and (members := self._next()):
            together = self._program.run_together([member.job for member in members])
            run = _Run(members, asyncio.create_task(together, name="handler-batch"))
            self._runs.add(run)
            run.task.add_done_callback(partial(self._end, run))

    def _next(self) -> list[_Member]:
        if self._alone:
            return [self._alone.popleft()]
        some = list(islice(self._waiting, self._size))
        count = self._program.share([member.job for member in some]) if some else 0
        return [self._waiting.popleft() for _ in some[:count]]

    def _end(self, run: _Run, task: "asyncio.Task[Outcome]") -> None:
        self._runs.discard(run)
        outcome = None if task.cancelled() else _outcome_of(task)
        for member in run.members:
            member.run = None
            if member.withdrawn:
                member.outcome.set_result(None)
            elif outcome and (len(run.members) == 1 or outcome.verdict in _OF_ALL):
                member.outcome.set_result(outcome)
            else:
                self._alone.append(member)
        self._call()


def _outcome_of(task: "asyncio.Task[Outcome]") -> Outcome:
    error = task.exception()
    return Outcome("retry", f"{type(error).__name__}: {error}") if error else task.result()
