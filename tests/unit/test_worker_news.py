"""What an operator hears of workers that end: which, why, how often, and when the next starts."""

import asyncio
from typing import Any

import pytest

from daemon.config_steps import WorkerStep
from daemon.handlers.worker import WorkerHandler
from daemon.handlers.worker_news import News
from tests.unit.test_worker import job, workers

GOOD = "say(id=r['id'], outcome='success')"


class Heard:
    """The lines of a handler."""

    def __init__(self, handler: WorkerHandler) -> None:
        self.lines: list[dict[str, Any]] = []
        self.levels: list[str] = []
        handler.news = News("s", self)

    def __call__(self, name: str, level: str = "info", **fields: Any) -> None:
        assert name == "worker_ended"
        self.levels.append(level)
        self.lines.append(fields)


@pytest.mark.parametrize(
    ("body", "options", "reason", "error"),
    [
        ("os.write(2, b'oh no'); os._exit(3)", {}, "crash", "exit status 3: oh no"),
        ("print('hello', flush=True)", {}, "crash", "no answer"),
        ("say(id=99, outcome='success')", {}, "astray", "does not have: 99"),
        ("time.sleep(60)", {"limit": 0.3}, "timeout", "a request ran out of time"),
        (GOOD + "; time.sleep(60)", {"ping": 0.2}, "deaf", "did not answer a ping within 0.2s"),
    ],
)
async def test_reason(body: str, options: dict[str, Any], reason: str, error: str) -> None:
    """Each way of ending has its name, and its words."""
    async with workers(body, **options) as handler:
        heard = Heard(handler)
        await handler.run(job())
        async with asyncio.timeout(10):
            while not heard.lines:  # noqa: ASYNC110 - a line is no event
                await asyncio.sleep(0)
        line = heard.lines[0]
    assert (line["reason"], line["watch"], line["step"]) == (reason, "w", "s")
    assert error in line["error"]
    assert (line["ends"], line["requests"], line["next_seconds"]) == (1, 1, 0.0)
    assert isinstance(line["pid"], int)
    assert heard.levels[0] == "warning"
    assert handler.news.ended >= 1


async def test_ends_that_are_wanted() -> None:
    """One that leaves after `max_requests` is told of at debug; one that ends with us is not."""
    async with workers(GOOD, max_requests=1, in_flight=1) as handler:
        heard = Heard(handler)
        await handler.run(job())
        async with asyncio.timeout(10):
            while not heard.lines:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
    assert (heard.levels, heard.lines[0]["reason"]) == (["debug"], "recycled")
    assert handler.news.ended == 0


async def test_cancelled() -> None:
    """So is one that was ended since nobody waited for its answer any more."""
    async with workers("time.sleep(60)") as handler:
        heard = Heard(handler)
        run = asyncio.create_task(handler.run(job()))
        while not any(worker.sent for worker in handler._workers):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait([run])
    assert (heard.levels, heard.lines[0]["reason"]) == (["debug"], "abandoned")


async def test_workers_that_do_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted, and told of no more often than every so often; at last with the end."""
    monkeypatch.setattr("daemon.handlers.worker_news.EVERY_SECONDS", 60.0)
    async with workers("", program="import os; os._exit(4)") as handler:
        heard = Heard(handler)
        assert (await handler.run(job())).verdict == "unavailable"
        assert len(heard.lines) == 1
    first, rest = heard.lines
    assert (first["reason"], first["ends"], first["restarts"]) == ("not_started", 1, 1)
    assert (rest["reason"], rest["ends"], rest["restarts"]) == ("not_started", 2, 3)
    assert (first["next_seconds"], 0.1 < rest["next_seconds"] <= 0.2) == (0.0, True)
    assert handler.news.ended == 3


async def test_told_a_while_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came too soon after a line has one of its own when it is time, and then it is quiet."""
    monkeypatch.setattr("daemon.handlers.worker_news.EVERY_SECONDS", 0.01)
    async with workers("", program="import os; os._exit(4)") as handler:
        heard = Heard(handler)
        await handler.run(job())
        async with asyncio.timeout(10):
            while sum(line["ends"] for line in heard.lines) < 3 or handler.news._pause:  # noqa: ASYNC110
                await asyncio.sleep(0)
        before = len(heard.lines)
    assert len(heard.lines) == before


async def test_program_that_is_not_there() -> None:
    """Without a process there is no number of one."""
    handler = WorkerHandler(WorkerStep(name="s", worker=("/nowhere/at/all",)))
    heard = Heard(handler)
    await handler.run(job())
    await handler.close()
    assert (heard.lines[0]["pid"], heard.lines[0]["reason"]) == (None, "not_started")
    assert "/nowhere/at/all" in heard.lines[0]["error"]
