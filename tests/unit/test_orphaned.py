"""Pipes of programs that outlive us: always with a reader, and read out by whoever comes after."""

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest

from daemon.handlers.orphaned import Listening, pipe
from tests.unit import shortage

DEADLINE = 10


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """Descriptors that are closed at the end."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def test_pipe_that_ends(ends: list[int]) -> None:
    """Its end is the end of all who write to it, though they could read from it as well."""
    ours, inlet = pipe(outlives=True)
    ends.append(ours)
    os.write(inlet, b"word")
    os.close(inlet)
    assert (os.read(ours, 9), os.read(ours, 9)) == (b"word", b"")


@pytest.mark.parametrize("outlives", [True, False])
def test_writer_who_is_alone(ends: list[int], *, outlives: bool) -> None:
    """Only who outlives us can go on to write when we are not there any more."""
    ours, inlet = pipe(outlives=outlives)
    ends.append(inlet)
    os.close(ours)
    if outlives:
        assert os.write(inlet, b"word") == 4
    else:
        with pytest.raises(BrokenPipeError):
            os.write(inlet, b"word")


def test_without_proc(ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc there is a pipe all the same."""

    def missing(path: str, *_: object) -> int:
        raise FileNotFoundError(path)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", missing)
        ends += pipe(outlives=True)
    os.write(ends[1], b"word")
    assert os.read(ends[0], 9) == b"word"


def test_no_descriptors() -> None:
    """None is lost where there are too few."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are enough
    for spare in range(3):
        probe = os.dup(0)
        os.close(probe)
        few = shortage.of_descriptors(probe + spare)
        with few, pytest.raises(OSError, match="Too many open files"):
            pipe(outlives=True)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - names are enough


def talking(inlet: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["head", "-c", "1000000", "/dev/zero"], stdout=inlet)


async def test_what_is_said_is_taken_out(ends: list[int]) -> None:
    """More than a pipe holds goes through, and the end of it is noticed."""
    ours, inlet = pipe(outlives=True)
    ends.append(ours)
    head = talking(inlet)
    os.close(inlet)
    with Listening() as listening:
        listening.listen_to([head.pid])
        listening.listen_to([head.pid])
        async with asyncio.timeout(DEADLINE):
            assert await asyncio.to_thread(head.wait) == 0
            while listening._pipes:  # noqa: ASYNC110 - the loop's own news, no event
                await asyncio.sleep(0)


async def test_pipes_of_others(ends: list[int]) -> None:
    """What a survivor's programs say to each other is theirs."""
    plain = pipe(outlives=False)
    ends += plain
    both = os.open(f"/proc/self/fd/{plain[1]}", os.O_WRONLY)
    ends.append(both)
    os.write(plain[1], b"for another")
    with Listening() as listening:
        listening.listen_to([os.getpid(), 2**22])
        assert listening._pipes == {}
    assert os.read(plain[0], 99) == b"for another"
