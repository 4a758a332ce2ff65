"""One watcher of one tree: a process of its own, and what it reports, typed.

`watch_child` is its program, and documents what comes over the pipe.
"""

import asyncio
import contextlib
import importlib.util
import marshal
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from daemon.engine.programs import PACKAGES, PYTHON, program

if TYPE_CHECKING:
    from daemon.engine.sight import Sights

_PROGRAM = program("daemon.sources.watch_child")
_PYTHON = PYTHON
KILL_AFTER = 2.0
# Once it watches it gives a sign of life every ten seconds; one that was stopped, or hangs, cannot.
STILL_SECONDS = 20.0
# A process that a hanging disk keeps from dying is left behind.
LEAVE_AFTER = 5.0


class Ready(NamedTuple):
    """The watches are in place. `complete`: on every folder that can be read."""

    latency_us: int
    complete: bool


class Changes(NamedTuple):
    """Paths below the root where something is, and where nothing is any more; both to be looked at.

    With those of regular files that are new, what they show.
    `burst`: so much happened that there may be more than was heard. `more`: the next report is of
    what was heard at the same time. `canary`: the number of the one that follows all of it.
    """

    present: "Sights"
    removed: list[bytes]
    burst: bool
    latency_us: int | None
    more: bool = False
    canary: int = 0


class Proven(NamedTuple):
    """The canary with this number has come back, and all before it: until then nothing was lost."""

    canary: int


class Flood(NamedTuple):
    """So many changes that none is named."""


class Canary(NamedTuple):
    """Nothing happened, and the canary is well."""

    latency_us: int


class Exhausted(NamedTuple):
    """A limit of inotify is reached: not everything is watched, or nothing is."""

    limit: Literal["max_user_watches", "max_user_instances"]


class RootDeleted(NamedTuple):
    """The root was removed, or is elsewhere."""


class Ended(NamedTuple):
    """Why a watcher is none any more. `overflow` and `blind` are told by the canary."""

    cause: Literal["overflow", "blind", "ended", "died", "stopped"]
    reason: str


Report = Ready | Changes | Proven | Flood | Canary | Exhausted | RootDeleted
_REPORTS: dict[str, Callable[..., Report]] = {
    "ready": Ready,
    "changes": Changes,
    "proven": Proven,
    "flood": Flood,
    "canary": Canary,
    "exhausted": Exhausted,
    "root_deleted": RootDeleted,
}
_LOST = {
    "overflow": Ended("overflow", "the queue ran over: a canary was lost"),
    "blind": Ended("blind", "no canary came back"),
}


class Watcher:
    """Watches a tree while it is entered, and iterates over what happens there.

    The iteration ends with the process, whatever ended it; then `ended` says why.
    """

    def __init__(self, root: bytes, canary: Path, *, probe: bool = False) -> None:
        """`probe`: have it find out of new files whether anybody has them open for writing."""
        looks = "probe" if probe else "look"
        self._arguments = (PACKAGES, _package_of_watchfiles(), root, canary, looks)
        self._kill: asyncio.TimerHandle | None = None
        self._is_ready = False
        self.ended = Ended("stopped", "it was told to end")

    async def __aenter__(self) -> Self:
        """Start the process.

        Raises:
            OSError: the machine has too few descriptors, processes or memory.
        """
        self._process = await asyncio.create_subprocess_exec(
            *_PYTHON,
            _PROGRAM,
            *self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Report]:
        while (report := await self._next()) is not None:
            yield report

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def stop(self) -> None:
        """Have the process end, by force if it does not do so at once."""
        if self._kill is None:
            self._input.close()
            self._kill = asyncio.get_running_loop().call_later(KILL_AFTER, self._force)

    async def close(self) -> None:
        """Have the process end, and see it gone; cancelled as well."""
        self.stop()
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait([gone], timeout=LEAVE_AFTER)
        except asyncio.CancelledError:
            await asyncio.wait([gone], timeout=LEAVE_AFTER)
            raise
        finally:
            gone.cancel()

    async def _next(self) -> Report | None:
        try:
            async with asyncio.timeout(STILL_SECONDS if self._is_ready else None):
                size = await self._output.readexactly(4)
                body = await self._output.readexactly(int.from_bytes(size, "little"))
        except asyncio.IncompleteReadError:
            await self._died()
            return None
        except TimeoutError:
            self.ended = Ended("blind", f"no sign of life for {STILL_SECONDS:g} s")
            self._force()
            return None
        name, *fields = marshal.loads(body)  # noqa: S302 - our own program wrote it
        self._is_ready = self._is_ready or name == "ready"
        if name in _REPORTS:
            return _REPORTS[name](*fields)
        self.ended = _LOST[fields[0]] if name == "lost" else Ended("ended", fields[0])
        return None

    async def _died(self) -> None:
        """The end of the pipe without a word before: nobody asked for that, or we did."""
        status, said = await self._gone()
        if self._kill is None:
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            how = signal.strsignal(-status) if status < 0 else f"exit status {status}"
            self.ended = Ended("died", f"its process ended: {how}{last and ': '}{last}")

    async def _gone(self) -> tuple[int, bytes]:
        """See the process to its end; its status, and what it wrote to stderr."""
        # What is left in a pipe is read: until its end the process does not count as ended.
        while await self._output.read(65_536):
            pass
        said = await self._errors.read()
        status = await self._process.wait()
        if self._kill is not None:
            self._kill.cancel()
        return status, said

    def _force(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    @property
    def _input(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None  # noqa: S101 - for mypy
        return self._process.stdin

    @property
    def _errors(self) -> asyncio.StreamReader:
        assert self._process.stderr is not None  # noqa: S101 - for mypy
        return self._process.stderr

    @property
    def _output(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None  # noqa: S101 - for mypy
        return self._process.stdout


@cache
def _package_of_watchfiles() -> str:
    """Where it is, without importing it: 25 ms, and asyncio twice."""
    found = importlib.util.find_spec("watchfiles")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("watchfiles is not installed")
    return found.submodule_search_locations[0]
