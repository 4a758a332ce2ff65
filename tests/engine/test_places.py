"""Whose turn it is: places of the whole daemon, priorities, and files that run alone."""

from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from daemon.config import Urgency, Watch
from daemon.config_steps import CommandStep
from daemon.core.model import Key, Row
from daemon.engine.lanes import Lane
from daemon.engine.ledger import Ledger
from daemon.engine.places import Places
from daemon.engine.trees import Tree
from tests.engine.conftest import Gate


class Unread:
    """A ledger that nobody reads from."""

    def remember(self, row: Row) -> None:
        pass


def lane(watch: str, rows: int = 0, *, concurrency: int = 99, **fields: object) -> Lane:
    """A lane with rows in memory, and none in the database."""
    step = CommandStep(name="load", command=("true",), concurrency=concurrency)
    made = replace(Watch(name=watch, path=Path("/nowhere"), step=(step,)), **fields)
    found = Lane(Tree(made), step, Gate(), cast("Ledger", Unread()))
    found.backlog.more = False
    for number in range(rows):
        found.backlog.offer(row_in(watch, number))
    return found


def row_in(watch: str, number: int, *, interruptions: int = 0, rank: int = 0) -> Row:
    row = Row(number + 1, Key(watch, b"%d" % number), "ready", 1, "load")
    return replace(row, interruptions=interruptions, rank=rank)


def places(most: int | None, *lanes: Lane) -> Places:
    found = Places(most)
    for each in lanes:
        found.lanes[each.tree.name, each.step.name] = each
    return found


def start(of: Places, now: float = 0.0) -> list[tuple[str, Row]]:
    """What is chosen, and started from now on."""
    found = []
    for each, row in of.choose(now):
        each.starting.add(row.key)
        found.append((each.tree.name, row))
    return found


def names(of: Places) -> str:
    return "".join(name for name, _ in start(of))


def test_without_a_limit_every_lane_is_full() -> None:
    """Lanes that share no places do not wait for each other."""
    assert names(places(None, lane("a", 5, concurrency=3), lane("b", 1))) == "aaab"


def test_places_of_the_daemon_go_round() -> None:
    """A lane with many files does not starve one with three."""
    assert names(places(9, lane("a", 60), lane("b", 3), lane("c", 60))) == "abcabcabc"


def test_turns_go_on_where_they_ended() -> None:
    """With one place for all, each lane has every second file: also one by one."""
    first, second = lane("a", 50), lane("b", 50)
    shared = places(1, first, second)
    order = ""
    for _ in range(6):
        (name, row), *more = start(shared)
        assert not more
        assert names(shared) == ""
        order += name
        (first if name == "a" else second).starting.discard(row.key)
    assert order == "ababab"


def test_full_lanes_give_their_turn_away() -> None:
    """What one lane may not use, the others do."""
    assert names(places(6, lane("a", 60, concurrency=1), lane("b", 60))) == "abbbbb"


def test_urgent_watches_first() -> None:
    """While a watch of a higher priority has files, the others get no place that it can use."""
    urgent = lane("u", 4, concurrency=3, priority=5)
    assert names(places(5, lane("a", 60), urgent)) == "uuuaa"


def test_urgent_files_of_any_watch_first() -> None:
    """The next file's own priority counts, where patterns give it one."""
    some = (Urgency(patterns=("1",), priority=7),)
    patterned = lane("p", priorities=some, priority=1)
    for number, rank in ((0, -1), (1, -7), (2, -1)):
        patterned.backlog.offer(row_in("p", number, rank=rank))
    chosen = start(places(4, lane("a", 60, priority=3), patterned))
    assert [(name, row.rank) for name, row in chosen] == [("p", -7), ("a", 0), ("a", 0), ("a", 0)]


def test_last_chance_runs_alone() -> None:
    """A file that was cut off once too few waits until nothing runs, and nothing runs beside it."""
    risky, other = lane("r"), lane("o", 2)
    for number, interruptions in ((0, 1), (1, 2), (2, 2)):
        risky.backlog.offer(row_in("r", number, interruptions=interruptions))
    shared = places(None, risky, other)
    beside = start(shared)
    assert sorted((name, row.id) for name, row in beside) == [("o", 1), ("o", 2), ("r", 1)]
    for number in range(5, 9):
        other.backlog.offer(row_in("o", number))
    assert start(shared) == []
    risky.starting.clear()
    assert start(shared) == []
    other.starting.clear()
    for expected in (2, 3):
        ((_, row),) = start(shared)
        assert row.id == expected
        assert start(shared) == []
        risky.starting.clear()
        shared.freed(row.key)
    assert len(start(shared)) == 4


def test_last_chance_alone_in_the_daemon() -> None:
    """Where nothing else waits or runs, nothing is waited for."""
    risky = lane("r")
    risky.backlog.offer(row_in("r", 0, interruptions=2))
    assert names(places(None, risky)) == "r"


def test_last_chance_of_an_open_step_holds_nobody_up() -> None:
    """A file that would run alone waits in the database while its step takes none."""
    risky, other = lane("r"), lane("o", 1)
    risky.backlog.offer(row_in("r", 0, interruptions=2))
    shared = places(None, risky, other)
    assert [name for name, _ in start(shared)] == ["o"]
    other.starting.clear()
    risky.breaker.open(0.0, 60.0)
    other.backlog.offer(row_in("o", 9))
    assert [name for name, _ in start(shared)] == ["o"]
    assert risky.backlog.more
    assert not risky.backlog.claimed


@pytest.mark.parametrize(("limit", "alone"), [(1, False), (2, True), (3, False)])
def test_what_a_last_chance_is(limit: int, *, alone: bool) -> None:
    """One interruption before the last that is allowed; a first one is nobody's fault yet."""
    risky = lane("r", interruptions=limit)
    risky.backlog.offer(row_in("r", 0, interruptions=1 if limit > 1 else 0))
    risky.backlog.offer(row_in("r", 1))
    assert len(start(places(None, risky))) == (1 if alone else 2)
