"""What a watcher may not have heard: until that is known, nothing is concluded from an absence.

Of a rename in an overflow the kernel may tell the old name and drop the new one.
"""

from collections import deque

from daemon.engine.barriers import Traffic


class Doubts:
    """Keeps barriers of a watch from being passed, each by a number, as a scan that still lists."""

    def __init__(self, traffic: Traffic, watch: str) -> None:
        self._traffic = traffic
        self._watch = watch
        # Of what is being passed on; and of removals, with the canary that proves that nothing was
        # lost before it.
        self._batch: int | None = None
        self._unproven: deque[tuple[int, int]] = deque()

    def begin_batch(self) -> None:
        """There is more of what was heard at one time, and the inbox may not have room for it."""
        if self._batch is None:
            self._batch = self._traffic.ask(self._watch)

    def end_batch(self, canary: int | None = None) -> None:
        """All of it was passed on. `canary`: there are removals in it, and this one followed."""
        number, self._batch = self._batch, None
        if number is not None and canary is not None:
            self._unproven.append((canary, number))
        elif number is not None:
            self._traffic.end(self._watch, number)

    def prove(self, canary: int) -> None:
        """This canary has come back, and all before it."""
        while self._unproven and self._unproven[0][0] <= canary:
            self._traffic.end(self._watch, self._unproven.popleft()[1])

    def lose(self) -> None:
        """No canary comes back any more: what is not proven is for the scan that follows."""
        self.end_batch()
        while self._unproven:
            self._traffic.doubt(self._watch, self._unproven.popleft()[1])
