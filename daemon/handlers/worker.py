"""The `worker` handler: programs that stay, and are asked about one file after the other.

A worker reads a JSON object a line and answers one a line (docs/handlers.md). It starts when there
is the first file for it. Who is to blame when it ends of itself:

* with one request in flight, that one: its file failed;
* with several, nobody knows: each is tried again alone, in a worker that has nothing else to do
  meanwhile, and no attempt is spent by the end that they shared;
* at a timeout the one that took too long; the others are asked again;
* when it answered what it was not asked, or no ping, none of them: they are asked again, a few
  times, and at last alone.

Workers that do not come up any more, or cannot be run at all, are nobody's fault: `unavailable`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from daemon.config_steps import WorkerStep
from daemon.handlers import Job, Outcome, Say, silent
from daemon.handlers.launching import Launcher
from daemon.handlers.record import Record, nowhere
from daemon.handlers.worker_news import News
from daemon.handlers.worker_process import Setting, WorkerProcess
from daemon.handlers.worker_protocol import request
from daemon.handlers.worker_request import Pending

# So many starts in a row have to fail before files are told so; a program that is not there says
# all that there is to say at once.
STARTS = 3
# What comes before another start: nothing after the first end, then this, doubled each time.
FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0
# So many workers may end under a request for the sake of others before it has to be alone.
RETURNS = 3


class WorkerHandler:
    """Asks the workers of a step. Each of them is on `record` for as long as it lives.

    `message` makes of a number and a job what a worker is sent. `say` hears of ends.
    """

    def __init__(
        self,
        step: WorkerStep,
        record: Record | None = None,
        message: Callable[[int, Job], Struct] = request,
        say: Say = silent,
    ) -> None:
        self._step = step
        self.news = News(step.name, say)
        self._setting = Setting(step, Launcher(step), record or nowhere(), message)
        self._workers: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._leaving: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._queue: deque[Pending] = deque()
        # Those of which one has ended a worker, and the worker that is theirs, one at a time.
        self._suspects: deque[Pending] = deque()
        self._apart: WorkerProcess | None = None
        # Starts that failed, and ends without an answer before them, both in a row.
        self._failures = 0
        self._ends = 0
        self._wait: asyncio.TimerHandle | None = None
        self._is_woken = False
        self._is_closing = False

    async def run(self, job: Job) -> Outcome:
        """Ask a worker, and wait for its answer, or for its end.

        Cancelling withdraws what no worker has yet. A worker that has it is ended, TERM and then
        KILL, if nobody waits for anything else from it; else it has `kill_after` to answer.
        Cancelling again sends KILL at once.
        """
        pending = Pending(job)
        self._queue.append(pending)
        self._wake()
        try:
            return await pending.answered
        except asyncio.CancelledError:
            await self._give_up(pending)
            raise

    async def close(self) -> None:
        """End the workers: their input ends, and after `kill_after` they are made to."""
        self._is_closing = True
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        for worker in list(self._workers):
            self._let_go(worker)
        if self._leaving:
            await asyncio.wait(self._leaving.values())
        self.news.close()

    async def _give_up(self, pending: Pending) -> None:
        worker = pending.worker
        if worker is None:
            for waiting in (self._queue, self._suspects):
                if pending in waiting:
                    waiting.remove(pending)
            return
        gone = worker.abandon(pending)
        try:
            await asyncio.wait((gone,))
        except asyncio.CancelledError:
            worker.hurry()
            await self._give_up(pending)

    def _wake(self) -> None:
        """Hand out what waits, once in this turn of the loop."""
        if not self._is_woken:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._is_woken = False
        if self._suspects or self._apart is not None:
            self._try_suspects()
        while self._queue:
            free = [(worker, room) for worker in self._workers if (room := self._room(worker))]
            if not free:
                break
            share = -(-len(self._queue) // len(free))
            for worker, room in free:
                count = min(share, room, len(self._queue))
                if count:
                    worker.send([self._queue.popleft() for _ in range(count)])
        self._start_missing()

    def _room(self, worker: WorkerProcess) -> int:
        if not worker.up or worker.is_ending or worker is self._apart:
            return 0
        room = self._step.in_flight - len(worker.sent)
        return (
            min(room, self._step.max_requests - worker.asked) if self._step.max_requests else room
        )

    def _try_suspects(self) -> None:
        """The worker that is set apart gets the next suspect when it has nothing else."""
        if self._apart is None or self._apart.is_ending:
            able = [each for each in self._workers if each.up and not each.is_ending]
            self._apart = min(able, key=lambda each: len(each.sent), default=None)
        if self._apart is None or self._apart.sent:
            return
        if self._suspects:
            self._apart.send([self._suspects.popleft()])
        else:
            self._apart = None

    def _start_missing(self) -> None:
        """As many workers as what waits has a use for; after a failure only one at a time."""
        waiting = len(self._queue) + len(self._suspects)
        starting = sum(not worker.up for worker in self._workers)
        while (
            waiting > starting * self._step.in_flight
            and len(self._workers) < self._step.processes
            and self._wait is None
            and not (starting and self._ends)
        ):
            worker = WorkerProcess(self._setting, self._has_room)
            watch = (self._queue or self._suspects)[0].job.watch
            life = asyncio.create_task(worker.live(watch), name="worker")
            self._workers[worker] = life
            life.add_done_callback(partial(self._has_ended, watch, worker))
            starting += 1

    def _has_room(self, worker: WorkerProcess) -> None:
        """It has come up, or has answered."""
        self._failures = 0
        if worker.answers:
            self._ends = 0
        if self._step.max_requests and worker.asked >= self._step.max_requests and not worker.sent:
            self._let_go(worker)
        if self._queue or self._suspects or self._apart is not None:
            self._wake()

    def _let_go(self, worker: WorkerProcess) -> None:
        """Its place is free, and it ends in its own time."""
        if life := self._workers.pop(worker, None):
            self._leaving[worker] = life
            worker.leave()
        if worker is self._apart:
            self._apart = None

    def _has_ended(self, watch: str, worker: WorkerProcess, life: asyncio.Task[None]) -> None:
        if life.cancelled():  # the loop is being torn down, and nothing begins any more
            return
        if worker is self._apart:
            self._apart = None
        if self._leaving.pop(worker, None) is None:
            del self._workers[worker]
        if worker.up:
            self._take_back(worker)
        elif worker.why != "told":
            self._has_not_started(worker)
        if not (self._is_closing and worker.why == "told"):
            wait = self._wait and self._wait.when() - asyncio.get_running_loop().time()
            self.news.tell(watch, worker, self._ends, max(wait or 0.0, 0.0))
        if self._queue or self._suspects:
            self._wake()

    def _take_back(self, worker: WorkerProcess) -> None:
        """Each request that it leaves behind: failed, under suspicion, or to be asked again."""
        left = list(worker.sent.values())
        for pending in left:
            pending.worker = None
        if worker.late is not None:
            late, timeout = worker.late, self._step.timeout
            error = worker.with_last_words(f"timed out after {timeout:g}s")
            late.finish(Outcome("retry", error, late.duration_ms, suspect=True))
        elif worker.why == "crash":
            self._back_off()
            if len(left) == 1:
                outcome = Outcome("retry", worker.how_it_went(), left[0].duration_ms, suspect=True)
                left[0].finish(outcome)
            self._suspects.extend(each for each in left if not each.answered.done())
        for pending in reversed(left):
            if pending.gone is not None:
                pending.finish(Outcome("retry"))
            elif not pending.answered.done() and worker.why != "crash":
                self._ask_again(pending, worker)

    def _ask_again(self, pending: Pending, worker: WorkerProcess) -> None:
        pending.returned += 1
        if pending.returned <= RETURNS:
            self._queue.appendleft(pending)
        elif pending.returned == RETURNS + 1:
            self._suspects.append(pending)
        elif worker.why == "astray":
            error = worker.how_it_went()
            pending.finish(Outcome("retry", error, pending.duration_ms, suspect=True))
        else:
            pending.finish(Outcome("unavailable", worker.how_it_went(), pending.duration_ms))

    def _has_not_started(self, worker: WorkerProcess) -> None:
        self._failures += 1
        self._back_off()
        is_first = worker.failed is None and self._failures < STARTS
        if is_first or any(each.up for each in self._workers):
            return
        verdict, error = worker.failed or (
            "unavailable",
            f"{worker.how_it_went()}, before it was ready",
        )
        if verdict == "retry":  # that is said of a file, and there is none yet
            verdict = "unavailable"
        for waiting in (self._suspects, self._queue):
            while waiting:
                pending = waiting.popleft()
                pending.finish(Outcome(verdict, error, pending.duration_ms))

    def _back_off(self) -> None:
        """After the first end at once, after the others later and later."""
        self._ends += 1
        if self._ends == 1 or self._wait is not None:
            return
        seconds = min(FIRST_WAIT * 2.0 ** min(self._ends - 2, 20), LONGEST_WAIT)
        self._wait = asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._wait = None
        self._hand_out()
