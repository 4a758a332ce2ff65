"""Time as the daemon sees it, for tests in which nothing is to happen."""

from itertools import count

from tests.acceptance.harness import RunningDaemon
from tests.acceptance.sites import Site


class Clock:
    """A second watch, whose files go through a whole life: that takes a quiet time each."""

    def __init__(self, site: Site) -> None:
        self._folder = site.folder / "clock"
        self._folder.mkdir()
        self._numbers = count()
        self.watch = site.watch(name="clock", path="clock", settle='quiet = "200ms"')

    def tick(self, daemon: RunningDaemon, times: int = 4) -> str:
        """Wait until so many files have come and settled, one after the other; the last one."""
        for _ in range(times):
            name = f"tick{next(self._numbers)}"
            (self._folder / name).touch()
            daemon.done(name)
        return name
