"""Programs that are over before the loop is told that they have begun."""

import asyncio
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from daemon.config_steps import CommandStep
from daemon.core.model import Key
from daemon.handlers import Job, running
from daemon.handlers.command import CommandHandler
from daemon.handlers.start import Became, Start

Look = Callable[[Start, Became], bool]
JOB = Job(7, Key("incoming", b"a.csv"), b"/srv/in/a.csv", "load", 2, "k-1")


def descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def wait_for_end(start: Start, became: Became, *, look: Look = Start.look) -> bool:
    """In place of `Start.look`: every program is over when it is told of."""
    assert isinstance(became, int)
    with suppress(ChildProcessError):  # the loop looked for itself meanwhile
        os.waitid(os.P_PID, became, os.WEXITED | os.WNOWAIT)
    return look(start, became)


@pytest.mark.parametrize("result", ["none", "stdout"])
async def test_over_when_told_of(
    monkeypatch: pytest.MonkeyPatch, result: Literal["none", "stdout"]
) -> None:
    """Of a program that is over before the loop knows of it, all comes out that it said."""
    monkeypatch.setattr(Start, "look", wait_for_end)
    monkeypatch.setattr(running, "GRACE", 20)
    step = CommandStep(name="load", command=("/bin/sh", "-c", "{name}"), result=result)
    programs = CommandHandler(step)
    before = descriptors()
    ends = ("echo oh >&2; exit 3", "echo 7", "(sleep 0.05; echo late >&2) & exit 65", "kill -9 $$")
    jobs = [replace(JOB, file=Key("w", end.encode())) for end in ends * 5]
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*map(programs.run, jobs))
    assert [(o.verdict, o.error, o.result) for o in outcomes] == 5 * [
        ("retry", "exit status 3: oh", None),
        ("success", None, "7" if result == "stdout" else None),
        ("reject", "exit status 65: late", None),
        ("retry", "killed by SIGKILL", None),
    ]
    assert descriptors() == before


async def test_cancelled_when_it_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a program left behind ends with it, cancelled before a thread has waited for it."""
    over, told = threading.Semaphore(0), threading.Event()

    def look(start: Start, became: Became) -> bool:
        assert isinstance(became, int)
        os.waitid(os.P_PID, became, os.WEXITED | os.WNOWAIT)
        over.release()
        assert told.wait(20)
        return look_(start, became)

    look_ = Start.look
    monkeypatch.setattr(Start, "look", look)
    script = f"sleep 600 & echo $! >{tmp_path}/child"
    step = CommandStep(name="load", command=("/bin/sh", "-c", script))
    run_ = asyncio.create_task(CommandHandler(step).run(JOB))
    assert await asyncio.to_thread(over.acquire, timeout=20)
    child = os.pidfd_open(int((tmp_path / "child").read_text()))
    run_.cancel()
    await asyncio.sleep(0)
    told.set()
    with pytest.raises(asyncio.CancelledError):
        await run_
    assert select.select([child], [], [], 20)[0] == [child]
    os.close(child)
