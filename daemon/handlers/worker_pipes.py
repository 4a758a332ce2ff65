"""The three pipes of a worker: what it reads, what it answers, and its words for people."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from daemon.handlers.orphaned import pipe
from daemon.handlers.running import GRACE, Pipe
from daemon.handlers.said import KEPT

_CHUNK = 262_144


class Pipes:
    """`stdin`, `stdout` and `stderr` are the worker's ends, and are closed by `hand_over`.

    `on_data` gets what it answers, in pieces; `on_end` is called when nothing more can come.
    `outlives`: a worker that outlives us is not ended by what it says.
    """

    def __init__(
        self,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
        *,
        outlives: bool = False,
    ) -> None:
        """Make them. Raises `OSError` where there are no descriptors left."""
        self._loop = asyncio.get_running_loop()
        self._on_data = on_data
        self._on_end = on_end
        self._unsent = bytearray()
        self._ended = asyncio.Event()
        self._input = self._output = self.stdin = self.stdout = -1
        self._words = Pipe(KEPT, outlives=outlives)
        self.stderr = self._words.inlet
        try:
            self.stdin, self._input = os.pipe()
            self._output, self.stdout = pipe(outlives=outlives)
        except OSError:
            self.close()
            raise
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)

    @property
    def has_ended(self) -> bool:
        """It has closed its output, and answers no more."""
        return self._ended.is_set()

    def hand_over(self) -> None:
        """The worker has its ends."""
        self._close_theirs()
        self._words.open()
        self._loop.add_reader(self._output, self._read)

    def write(self, data: bytes) -> None:
        """Send it, at once as far as the pipe has room. What nobody reads any more is dropped."""
        if self._input < 0:
            return
        if not self._unsent:
            data = data[self._written(data) :]
            if not data or self._input < 0:
                return
            self._loop.add_writer(self._input, self._write_on)
        self._unsent += data

    def end_input(self) -> None:
        """There is nothing more to read for it; what is not sent yet it does not get."""
        fd, self._input = self._input, -1
        if fd >= 0:
            self._loop.remove_writer(fd)
            os.close(fd)

    def forget_words(self) -> None:
        """What it said so far is about something else."""
        self._words.forget()

    async def last_words(self) -> bytes:
        """Once it is gone: take in the rest of its answers, and return the end of its words."""
        self._read()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._ended.wait()
        return await self._words.end()

    def close(self) -> None:
        """Give all of them back. May be called twice."""
        self._close_theirs()
        self.end_input()
        self._close_output()
        self._words.close()

    def _written(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._input, data)
        except BlockingIOError:
            return 0
        except OSError:  # it has closed its input, or is gone: its end tells more
            self.end_input()
            return 0

    def _write_on(self) -> None:
        del self._unsent[: self._written(self._unsent)]
        if not self._unsent and self._input >= 0:
            self._loop.remove_writer(self._input)

    def _read(self) -> None:
        while self._output >= 0:
            try:
                data = os.read(self._output, _CHUNK)
            except BlockingIOError:
                return
            if data:
                self._on_data(data)
            else:
                self._close_output()
                self._on_end()
            if len(data) < _CHUNK:
                return

    def _close_output(self) -> None:
        fd, self._output = self._output, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._ended.set()

    def _close_theirs(self) -> None:
        self._words.close_inlet()
        for fd in (self.stdin, self.stdout):
            if fd >= 0:
                os.close(fd)
        self.stdin = self.stdout = -1
