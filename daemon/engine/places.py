"""Who is started next: lanes take turns for the places of the daemon, the most urgent first."""

from collections import deque
from collections.abc import Iterator

from daemon.core.model import Key, Row
from daemon.engine.lanes import Lane

LaneName = tuple[str, str]


class Places:
    """At most `most` files at once in all lanes together; None: as many as the lanes allow.

    A file whose handler died with the daemon so often that once more is once too often runs alone:
    if the daemon dies again, it was that file's doing, and not of one that ran beside it.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        # In the order of their turns: whoever had the last one is at the end.
        self.lanes: dict[LaneName, Lane] = {}
        self._alone: deque[tuple[Lane, Row]] = deque()
        # The file that runs alone just now.
        self._solo: Key | None = None

    def choose(self, now: float) -> Iterator[tuple[Lane, Row]]:
        """Take the rows that are to be started now from their lanes."""
        yield from self._choose_one(now)
        if not self._alone and self._solo is None:
            yield from self._choose_many(now)
            # Among them there may have been one that runs alone, and nothing else.
            yield from self._choose_one(now)

    def freed(self, key: Key) -> None:
        """This file does not run any more, or never did."""
        if self._solo == key:
            self._solo = None

    @property
    def _is_taken(self) -> bool:
        return any(lane.taken for lane in self.lanes.values())

    def _choose_many(self, now: float) -> Iterator[tuple[Lane, Row]]:
        if self._most is not None:
            yield from self._in_turn(now, self._most)
            return
        for lane in self.lanes.values():
            for _ in range(lane.startable(now)):
                yield from self._take(lane)

    def _choose_one(self, now: float) -> Iterator[tuple[Lane, Row]]:
        while self._alone and self._solo is None and not self._is_taken:
            lane, row = self._alone.popleft()
            if lane.room(now) > 0:
                self._solo = row.key
                yield lane, row
            else:
                # Its step may be open for days: nobody else has to wait for that.
                lane.put_back(row)

    def _in_turn(self, now: float, most: int) -> Iterator[tuple[Lane, Row]]:
        """One from each lane in turn; while there are more urgent ones, those only."""
        free = most - sum(lane.taken for lane in self.lanes.values())
        rooms = {name: n for name, lane in self.lanes.items() if (n := lane.startable(now)) > 0}
        while free > 0 and rooms:
            name = max(rooms, key=self._urgency)
            left = rooms.pop(name) - 1
            if left:
                rooms[name] = left
            free -= 1
            lane = self.lanes[name] = self.lanes.pop(name)
            yield from self._take(lane)

    def _urgency(self, name: LaneName) -> int:
        return self.lanes[name].urgency

    def _take(self, lane: Lane) -> Iterator[tuple[Lane, Row]]:
        row = lane.take()
        if row.interruptions and row.interruptions + 1 >= lane.tree.watch.interruptions:
            self._alone.append((lane, row))
        else:
            yield lane, row
