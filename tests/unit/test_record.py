"""The record of running handlers, and who of them is still there."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.handlers import survivors
from daemon.handlers.record import NAME, VARIABLE, Mark, Record, nowhere
from daemon.handlers.survivors import alive, see_off

DEADLINE = 20


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path)
    yield record
    record.close()


@pytest.fixture
def started() -> Iterator[Callable[..., int]]:
    """Start a shell that says when it is up; whatever it started is ended with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(mark: Mark | None, script: str) -> int:
        told = mark.environment.items() if mark else ()
        process = subprocess.Popen(
            ["/bin/sh", "-c", script],
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], **{k.decode(): v.decode() for k, v in told}},
        )
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        return process.pid

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


STAYS = "echo up; exec sleep 600 >/dev/null"


def again(record: Record, folder: Path) -> Record:
    """The record as the next daemon finds it."""
    record.close()
    return Record.open(folder)


def test_what_ran_is_found(record: Record, tmp_path: Path, started: Callable[..., int]) -> None:
    """A run that was begun and has not ended is left, with its process and its file."""
    over = record.begin("w", "s", 6)
    mark = record.begin("incoming", "load", 7)
    pid = started(mark, STAYS)
    mark.started(pid)
    over.ended()
    (left,) = again(record, tmp_path).left
    assert (left.pid, left.file_id, left.lane) == (pid, 7, b"incoming/load")
    assert [process.pid for process in alive([left])[left]] == [pid]


def test_killed_between_start_and_record(
    record: Record, tmp_path: Path, started: Callable[..., int]
) -> None:
    """A process that is not on record yet is found by its environment."""
    pid = started(record.begin("w", "s"), STAYS)
    (left,) = again(record, tmp_path).left
    assert left.pid == 0
    assert [process.pid for process in alive([left])[left]] == [pid]


def test_without_its_environment(
    record: Record, tmp_path: Path, started: Callable[..., int]
) -> None:
    """A program that emptied its environment is found by its process, its child by the group."""
    mark = record.begin("w", "s")
    script = "sleep 600 >/dev/null & echo up; exec sleep 600 >/dev/null"
    mark.started(pid := started(None, script))
    (left,) = again(record, tmp_path).left
    found = [process.pid for process in alive([left])[left]]
    assert pid in found
    assert len(found) == 2


def test_child_of_a_dead_leader(
    record: Record, tmp_path: Path, started: Callable[..., int]
) -> None:
    """What the program left behind in its group is of the run, though the program is gone."""
    mark = record.begin("w", "s")
    mark.started(pid := started(None, "sleep 600 >/dev/null & echo up"))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (left,) = again(record, tmp_path).left
    (child,) = alive([left])[left]
    assert child.session == pid != child.pid
    os.kill(child.pid, signal.SIGKILL)


def test_number_given_to_somebody_else(
    record: Record, tmp_path: Path, started: Callable[..., int]
) -> None:
    """A process that has the number of one on record, but began at another time, is a stranger."""
    mark = record.begin("w", "s")
    mark.started(pid := started(None, STAYS))
    (left,) = again(record, tmp_path).left
    assert alive([left])
    assert not alive([left._replace(before=left.before - 1_000, after=left.after - 1_000)])
    assert not alive([left._replace(before=left.before + 1_000, after=left.after + 1_000)])
    assert pid


def test_who_asks_is_no_survivor(record: Record, tmp_path: Path) -> None:
    """A daemon that is itself started by a handler of its own does not end itself."""
    mark = record.begin("w", "s")
    mark.started(os.getsid(0))
    (left,) = again(record, tmp_path).left
    assert os.getpid() not in [
        p.pid for p in alive([left._replace(after=0, before=1 << 60)]).get(left, [])
    ]


def test_another_boot(record: Record, tmp_path: Path) -> None:
    """Nothing survives a restart of the machine."""
    record.begin("w", "s")
    record.close()
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b"boot ", b"boot x"))
    assert Record.open(tmp_path).left == ()


@pytest.mark.parametrize("damage", [b"", b"\0" * 300, b"x" * 1_000])
def test_damaged_file(record: Record, tmp_path: Path, damage: bytes) -> None:
    """What cannot be read is no reason not to start."""
    record.begin("w", "s")
    record.close()
    (tmp_path / NAME).write_bytes(damage)
    damaged = Record.open(tmp_path)
    assert damaged.left == ()
    damaged.begin("w", "s")
    assert len(again(damaged, tmp_path).left) == 1


def test_slots_are_used_again(record: Record, tmp_path: Path) -> None:
    """The file is as long as the most runs at a time, and each run has a name of its own."""
    names = set()
    for _ in range(100):
        marks = [record.begin("w", "s", n) for n in range(3)]
        names |= {mark.environment[VARIABLE] for mark in marks}
        for mark in marks:
            mark.ended()
    assert len(names) == 300
    assert (tmp_path / NAME).stat().st_size == 4 * 256
    assert again(record, tmp_path).left == ()


def test_survivors_keep_their_slots(record: Record, tmp_path: Path) -> None:
    """What a third daemon must know of is not overwritten by the second."""
    first, second = record.begin("w", "first"), record.begin("w", "second")
    second_daemon = again(record, tmp_path)
    assert {left.run for left in second_daemon.left} == {
        first.environment[VARIABLE],
        second.environment[VARIABLE],
    }
    second_daemon.forget(second_daemon.left[0].slot)
    for number in range(5):
        second_daemon.begin("w", "new", number)
    lanes = sorted(left.lane for left in again(second_daemon, tmp_path).left)
    assert lanes == [b"w/new"] * 5 + [b"w/second"]


def test_long_names(record: Record, tmp_path: Path) -> None:
    """However long the names of watch and step are, the line fits."""
    record.begin("w" * 500, "s" * 500, 2**63 - 1).started(2**22)
    (left,) = again(record, tmp_path).left
    assert (left.pid, left.file_id) == (2**22, 2**63 - 1)


def test_record_of_nobody() -> None:
    """Without a daemon there is nothing to keep."""
    mark = nowhere().begin("w", "s")
    mark.started(1)
    mark.ended()


@pytest.mark.parametrize(
    ("script", "kill_after"),
    [
        (STAYS, 60),
        ("trap '' TERM; echo up; exec sleep 600 >/dev/null", 0.1),
        ("trap '' TERM; setsid sleep 600 >/dev/null & echo up; sleep 600 >/dev/null & wait", 0.1),
    ],
)
async def test_ended(
    record: Record, tmp_path: Path, started: Callable[..., int], script: str, kill_after: float
) -> None:
    """All of a run is ended: who ignores TERM, and who has a session of its own, as well."""
    mark = record.begin("w", "s")
    mark.started(started(mark, script))
    (left,) = again(record, tmp_path).left
    assert alive([left])
    async with asyncio.timeout(DEADLINE):
        await see_off(left, "end", kill_after)
    assert not alive([left])


async def test_waited_for(
    record: Record, tmp_path: Path, started: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is waited for is sent no signal."""
    os.mkfifo(tmp_path / "gate")
    sent: list[object] = []
    monkeypatch.setattr(survivors, "_signal", lambda *what: sent.append(what))
    mark = record.begin("w", "s")
    mark.started(started(mark, f"echo up; read _ <{tmp_path}/gate"))
    (left,) = again(record, tmp_path).left
    waiting = asyncio.create_task(see_off(left, "wait", 0.0))
    await asyncio.wait((waiting,), timeout=0.2)
    assert not waiting.done()
    (tmp_path / "gate").write_text("\n")
    async with asyncio.timeout(DEADLINE):
        await waiting
    assert sent == []


def test_begun_in_threads(record: Record, tmp_path: Path) -> None:
    """Each run that one of several threads begins has a name and a slot of its own."""
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            marks = list(threads.map(lambda n: record.begin("w", "s", n), range(1, 401)))
    finally:
        sys.setswitchinterval(often)
    assert len({mark.environment[VARIABLE] for mark in marks}) == 400
    left = again(record, tmp_path).left
    assert sorted(one.file_id for one in left) == list(range(1, 401))
