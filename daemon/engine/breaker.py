"""The breaker of a step: what it needs is away, so its files are left alone until it is back."""

from daemon.config_steps import Breaker as Settings
from daemon.core.model import Key


class Breaker:
    """Opens after so many failures in a row that are no file's fault; then a probe now and then.

    While it is open one file at a time goes through, after `first` seconds, and twice as long after
    each probe that met the same, up to `max`. Whatever else a handler answers closes it: somebody
    did answer. Times are the loop's, in seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wait = settings.first
        self.failures = 0
        self.probes = 0
        self.is_open = False
        self.opened_at = 0.0
        self.probe_at = 0.0
        # The file that goes through while it is open.
        self.probing: Key | None = None

    def lets_pass(self, now: float) -> bool:
        """Whether a file may be started: any, or the next probe."""
        return not self.is_open or (self.probing is None and now >= self.probe_at)

    def open(self, now: float, wait: float) -> None:
        """Leave the files of the step alone, for so many seconds at first."""
        self.is_open = True
        self.opened_at = now
        self.probe_at = now + wait
        self.probes = 0
        self._wait = self._settings.first

    def suffers(self, key: Key, now: float, after: float | None = None) -> bool:
        """A file met what no file can be blamed for. True: it was the one too many.

        `after`: for so long nobody should ask again, says whoever answered in place of the server.
        """
        self.failures += 1
        longer = min(after or 0.0, self._settings.max)
        if not self.is_open:
            if self.failures >= self._settings.after:
                self.open(now, max(self._settings.first, longer))
            return self.is_open
        if key == self.probing:
            self._wait = min(2 * self._wait, self._settings.max)
            self.probe_at = now + max(self._wait, longer)
        return False

    def answers(self) -> bool:
        """A handler was heard, for better or worse. True: until now it was open."""
        was_open, self.is_open = self.is_open, False
        self.failures = 0
        return was_open

    def probe(self, key: Key) -> None:
        """This file goes through while it is open."""
        if self.is_open:
            self.probing = key
            self.probes += 1

    def ended(self, key: Key) -> None:
        """This file does not run any more, or never did."""
        if self.probing == key:
            self.probing = None

    def patience(self, times: int) -> float:
        """How long one file is left alone that met such a failure so many times, while closed."""
        return min(self._settings.first * 2.0 ** min(times, 30), self._settings.max)
