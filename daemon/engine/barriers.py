"""What was on its way at some moment: all of it arrives before an absence means anything.

Whether it is calm is another question: under load it never is, and what is being worked on does
not show. Seen: a file was renamed, and what stood under its old name by then went on record while
the look at the new name was at work. So no row knew the inode, and the file was handled again.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from operator import ge

from daemon.core.model import Trigger


class Traffic:
    """What passes through an inbox: numbers only, counted where it enters and where it leaves.

    `put` and `taken` are by line; each line is first come first served.
    """

    def __init__(self, lines: int) -> None:
        self.put = [0] * lines
        self.taken = [0] * lines
        self._groups: dict[int, int] = {}
        self._scans: defaultdict[str, Counter[int]] = defaultdict(Counter)
        # By watch, numbers that end with the next scan of the whole tree.
        self._doubts: defaultdict[str, list[int]] = defaultdict(list)
        # Numbers groups and scans.
        self.last = 0

    def start(self, group: Sequence[Trigger]) -> None:
        """These were taken out together."""
        self.last += 1
        self._groups[id(group)] = self.last

    def finish(self, group: Sequence[Trigger]) -> None:
        """The work of these is done."""
        self._groups.pop(id(group), None)

    def ask(self, watch: str) -> int:
        """A scan is asked for; the number under which it, and what it is split into, is known."""
        self.last += 1
        self._scans[watch][self.last] += 1
        return self.last

    def begin(self, watch: str, asked: int) -> Callable[[], None]:
        """One more under this number; call what is returned when its directories were listed."""
        self._scans[watch][asked] += 1
        return lambda: self.end(watch, asked)

    def end(self, watch: str, asked: int) -> None:
        """One less."""
        scans = self._scans[watch]
        scans[asked] -= 1
        if not scans[asked]:
            del scans[asked]

    def doubt(self, watch: str, asked: int) -> None:
        """Only a scan of the whole tree, which begins later, can tell what this one waits for."""
        self._doubts[watch].append(asked)

    def open(self, watch: str, *, whole: bool) -> Callable[[], None]:
        """Something is put in, by a scan of the `whole` tree perhaps; the end is to be called."""
        doubts = self._doubts.pop(watch, ()) if whole else ()
        numbers = [self.ask(watch), *doubts]

        def end() -> None:
            for asked in numbers:
                self.end(watch, asked)

        return end

    def is_listed(self, watch: str, last: int) -> bool:
        """Whether every scan up to this number has listed its directories."""
        return min(self._scans[watch], default=last + 1) > last

    def is_taken(self, mark: Sequence[int]) -> bool:
        """Whether so much of each line was taken out."""
        return all(map(ge, self.taken, mark))

    def is_finished(self, last: int) -> bool:
        """Whether every group up to this number is finished."""
        return next(iter(self._groups.values()), last + 1) > last


class Barrier:
    """What had been put in, and which scans of a watch were asked for, when it was made.

    A scan puts in what it finds: so first all of them have listed, then what is in the lines is
    taken, then what is being worked on is finished. What comes later is not waited for; nor are the
    scans of other watches, for a disk that hangs is to hold up nobody else. No watch: no scan is.
    """

    def __init__(self, traffic: Traffic, watch: str | None = None) -> None:
        self._traffic = traffic
        self._watch = watch
        self._asked = traffic.last
        self._mark: list[int] | None = None
        self._last: int | None = None

    def is_passed(self) -> bool:
        """Whether all of it has arrived; to be asked now and then."""
        traffic = self._traffic
        if self._mark is None:
            if self._watch is not None and not traffic.is_listed(self._watch, self._asked):
                return False
            self._mark = traffic.put.copy()
        if self._last is None:
            if not traffic.is_taken(self._mark):
                return False
            self._last = traffic.last
        return traffic.is_finished(self._last)
