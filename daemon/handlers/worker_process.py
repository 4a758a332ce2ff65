"""One worker: its process, and the requests that are with it."""

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal

from msgspec import Struct

from daemon.config_steps import WorkerStep
from daemon.handlers import Job, Verdict
from daemon.handlers.launching import Launcher
from daemon.handlers.record import Mark, Record
from daemon.handlers.running import GRACE, Running, end_at_once
from daemon.handlers.said import how_it_ended, readable_tail, said
from daemon.handlers.worker_pipes import Pipes
from daemon.handlers.worker_protocol import (
    Answer,
    Lines,
    NotUnderstoodError,
    Ping,
    lines_of,
    outcome_of,
    read_answers,
)
from daemon.handlers.worker_request import Pending

# Why a worker ended: of itself or for what it said (`crash`); it answered what it was not asked; a
# request ran out of time; a ping was not answered; nobody waits any more for what it was asked; it
# was told to.
Why = Literal["crash", "astray", "timeout", "deaf", "abandoned", "told"]


class Setting(Struct, frozen=True):
    """What all workers of a step have in common.

    `message` makes of a number and a job what a worker is sent.
    """

    step: WorkerStep
    launcher: Launcher
    record: Record
    message: Callable[[int, Job], Struct]


class WorkerProcess:
    """A worker from its start to its end; `live` is all of it.

    `on_room` is called when it has come up, and when it has answered. What it was asked and did
    not answer is in `sent` at the end, in the order in which it was sent. `failed` is what it means
    that it could not be started.
    """

    def __init__(self, setting: Setting, on_room: Callable[["WorkerProcess"], None]) -> None:
        self.sent: dict[int, Pending] = {}
        self.asked = 0
        self.answers = 0
        self.up = False
        self.why: Why = "crash"
        self.late: Pending | None = None
        self.failed: tuple[Verdict, str] | None = None
        self._setting = setting
        self._step = setting.step
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._lines = Lines()
        self._ping: int | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pipes: Pipes | None = None
        self._running: Running | None = None
        self._fault = ""
        self._status: int | None = None
        self._words = b""

    @property
    def is_ending(self) -> bool:
        """It takes no more requests: it was told to end, or shows that it is about to."""
        told = self.why != "crash" or bool(self._fault) or self._status is not None
        return told or self._pipes is None or self._pipes.has_ended

    @property
    def pid(self) -> int | None:
        """Its process, if there ever was one."""
        return self._running.pid if self._running else None

    async def live(self, watch: str) -> None:
        """Start, serve, and see it and its whole group to the end. Cancelling ends it."""
        if self.why == "told":
            return
        mark = self._setting.record.begin(watch, self._step.name)
        try:
            self._start(mark)
            if self._running is not None and self._pipes is not None:
                self._status = await self._running.end()
                self._words = await self._pipes.last_words()
        finally:
            for timer in self._timers.values():
                timer.cancel()
            if self._pipes is not None:
                self._pipes.close()
            mark.ended()
        self._judge_start()

    def send(self, requests: Sequence[Pending]) -> None:
        """Hand over requests, in one write."""
        deadline = self._loop.time() + self._step.timeout
        messages = []
        for pending in requests:
            number = next(self._numbers)
            pending.worker, pending.deadline = self, deadline
            self.sent[number] = pending
            messages.append(self._setting.message(number, pending.job))
        self.asked += len(requests)
        self._write(messages)
        if "request" not in self._timers:
            self._timers["request"] = self._loop.call_at(deadline, self._look_at_oldest)

    def abandon(self, pending: Pending) -> asyncio.Future[None]:
        """Nobody waits for this request any more; resolves when the worker is done with it.

        A worker that has others to answer gets `kill_after` to answer this one as well.
        """
        if pending.gone is None:
            pending.gone = self._loop.create_future()
        if all(each.gone is not None for each in self.sent.values()):
            self.end("abandoned")
        elif "abandoned" not in self._timers:
            self._timers["abandoned"] = self._loop.call_later(
                self._step.kill_after, self._look_at_abandoned
            )
        return pending.gone

    def end(self, why: Why) -> None:
        """Ask the process to end, and force it after `kill_after`. Nothing where it was asked."""
        if self._running is None or self._running.pushes:
            return
        if not self.is_ending:
            self.why = why
        self._running.push()

    def hurry(self) -> None:
        """Force it to end now, if it was asked before."""
        if self._running is not None:
            self._running.push()

    def leave(self) -> None:
        """Let it end of itself, for there is nothing more to read; force it after `kill_after`."""
        if self._pipes is None:  # it has not been started yet, and will not be
            self.why = "told"
        elif not self.is_ending:
            self.why = "told"
            self._pipes.end_input()
            self._later("leave", self._step.kill_after, lambda: self.end("told"))

    def how_it_went(self) -> str:
        """Why it ended, with the last words on its stderr."""
        half = " in the middle of a line" if self._lines.rest else ""
        how = self._fault or f"ended: {how_it_ended(self._status or 0)}"
        return self.with_last_words(f"the worker {how}{half}")

    def with_last_words(self, what: str) -> str:
        """`what`, and the tail of its stderr."""
        return said(what, self._words)

    def _start(self, mark: Mark) -> None:
        launcher, argv = self._setting.launcher, list(map(os.fsencode, self._step.worker))
        try:
            outlives = self._step.on_restart == "wait"
            self._pipes = Pipes(self._read, self._is_mute, outlives=outlives)
            pid = launcher.start(argv, mark.environment, self._pipes)
        except Exception as error:  # noqa: BLE001 - whatever kept it from starting is news about the step
            self.failed = launcher.judge(argv[0], error)
            return
        mark.started(pid)
        try:
            self._pipes.hand_over()
            self._running = Running(
                pid, timeout=math.inf, kill_after=self._step.kill_after, with_group=True
            )
        except (OSError, RuntimeError) as error:  # no memory, or no thread to wait for it in
            end_at_once(pid)
            self.failed = "defer", f"cannot watch over the worker: {error}"
            return
        self._send_ping()
        self._later("start", self._step.timeout, self._is_deaf)

    def _judge_start(self) -> None:
        if self.up or self._status is None:
            return
        if self._setting.launcher.was_not_run(self._status, self._words):
            self.failed = "unavailable", readable_tail(self._words)

    def _read(self, data: bytes) -> None:
        if self._fault:
            return  # nothing that it says counts any more
        try:
            lines = self._lines.whole(data)
        except NotUnderstoodError as error:
            self._break(str(error))
        else:
            self._hear(lines)

    def _is_mute(self) -> None:
        """It can answer no more. Most often because it ends, with a status that says more."""
        if self._status is None:
            self._later("mute", GRACE, lambda: self._break("closed its output"))

    def _write(self, messages: list[Struct]) -> None:
        if self._pipes is not None:
            self._pipes.write(lines_of(messages))

    def _hear(self, lines: bytes) -> None:
        answers, error = read_answers(lines)
        for answer in answers:
            if not self._take(answer):
                return
        if error is not None:
            self._break(str(error))
            return
        if not self.sent and self._pipes is not None:
            self._pipes.forget_words()
        self._on_room(self)

    def _take(self, answer: Answer) -> bool:
        if answer.pong is not None:
            return self._take_pong(answer.pong)
        number = answer.id or 0
        if number not in self.sent:
            self._break(f"answered a request that it does not have: {answer.id}", "astray")
            return False
        if answer.outcome is None:
            self._break(f"answered request {number} without an outcome")
            return False
        self.answers += 1
        pending = self.sent.pop(number)
        pending.finish(outcome_of(answer, pending.duration_ms))
        return True

    def _take_pong(self, number: int) -> bool:
        if number != self._ping:
            self._break(f"answered a ping that it did not get: {number}", "astray")
            return False
        self._ping = None
        if not self.up:
            self.up = True
            self._timers.pop("start").cancel()
            if self._step.ping:
                self._later("ping", self._step.ping, self._tick)
        return True

    def _tick(self) -> None:
        """It was pinged last time, and is silent since; or it has nothing to do, and is pinged."""
        if self._ping is not None:
            self._is_deaf()
            return
        if not self.sent:
            self._send_ping()
        self._later("ping", self._step.ping, self._tick)

    def _send_ping(self) -> None:
        self._ping = next(self._numbers)
        self._write([Ping(self._ping)])

    def _is_deaf(self) -> None:
        seconds = self._step.ping if self.up else self._step.timeout
        self.end("deaf")
        self._fault = f"did not answer a ping within {seconds:g}s"

    def _look_at_oldest(self) -> None:
        """One timer for all requests: they were sent in the order of their deadlines."""
        del self._timers["request"]
        oldest = next((each for each in self.sent.values() if each.gone is None), None)
        if oldest is None or self.is_ending:
            return
        if oldest.deadline > self._loop.time():
            self._timers["request"] = self._loop.call_at(oldest.deadline, self._look_at_oldest)
            return
        self.late = oldest
        self.end("timeout")

    def _look_at_abandoned(self) -> None:
        del self._timers["abandoned"]
        if any(each.gone is not None for each in self.sent.values()):
            self.end("abandoned")

    def _break(self, fault: str, why: Why = "crash") -> None:
        """It does not keep to the protocol."""
        if self.why == "crash" and not self._fault and self._running is not None:
            self._fault, self.why = fault, why
            self._running.push()

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[name] = self._loop.call_later(seconds, call)
