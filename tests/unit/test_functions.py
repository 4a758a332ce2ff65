"""The `function` handler's own: what is imported, what is refused, and whose fault an error is."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.cli.loading import load_whole
from daemon.config_steps import FunctionStep
from daemon.core.model import Fingerprint, Key
from daemon.errors import ConfigError
from daemon.handlers import Handler, Job
from daemon.handlers.function import AsyncFunctionHandler
from daemon.handlers.function_threads import ThreadFunctionHandler
from daemon.handlers.opening import handler_of
from tests.unit import shortage

JOB = Job(7, Key("w", b"in/a.csv"), b"/srv/in/a.csv", "s", 2, "k")
MODULE = """
class Loader:
    def load(self, job): return job.name
    async def load_async(self, job): return job.name
loader = Loader()
number = 5
def load(job): return None
def two(job, more): return None
def none(): return None
def keyword(*, job): return None
def generator(job): yield 1
async def loop(job): return None
"""
CONFIG = """\
[daemon]
state_dir = "state"
[[watch]]
name = "in"
path = "tree"
[[watch.step]]
name = "load"
function = "{function}"
path = ["modules"]
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that no later test finds, beside a tree to watch."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("tree", "modules"):
        (tmp_path / name).mkdir()
    (tmp_path / "modules" / "shop.py").write_text(MODULE)
    (tmp_path / "modules" / "broken.py").write_text("print('loud')\nimport nothing_like_it\n")
    (tmp_path / "modules" / "torn.py").write_text("def load(job:\n")
    (tmp_path / "modules" / "ends.py").write_text("raise SystemExit(3)\n")
    yield tmp_path
    for name in ("shop", "broken", "torn", "ends"):
        sys.modules.pop(name, None)


def refused(folder: Path, function: str, more: str = "") -> str:
    (folder / "config.toml").write_text(CONFIG.format(function=function) + more)
    with pytest.raises(ConfigError) as caught:
        load_whole(folder / "config.toml")
    (problem,) = caught.value.problems
    assert problem.remedy
    return f"{problem.line} {problem.key} {problem.found}"


@pytest.mark.parametrize(
    ("function", "line", "found"),
    [
        ("shop", 8, "'shop'"),
        ("shop:", 8, "'shop:'"),
        ("a-b:c", 8, "'a-b:c'"),
        ("nowhere:load", 8, "cannot import 'nowhere': ModuleNotFoundError"),
        ("broken:load", 8, "No module named 'nothing_like_it' (/"),
        ("torn:load", 8, "SyntaxError"),
        ("ends:load", 8, "SystemExit: 3"),
        ("shop:store", 8, "module 'shop' has no 'store'"),
        ("shop:number", 8, "'shop:number' is int, not a function"),
        ("shop:two", 8, "missing a required argument: 'more'"),
        ("shop:none", 8, "too many positional arguments"),
        ("shop:keyword", 8, "too many positional arguments"),
        ("shop:Loader.load", 8, "missing a required argument: 'job'"),
        ("shop:generator", 8, "is a generator"),
    ],
)
def test_refused(modules: Path, function: str, line: int, found: str) -> None:
    """What cannot be used is an error of the configuration, with its line and key."""
    said = refused(modules, function)
    assert said.startswith(f"{line} watch[0].step[0].function ")
    assert found in said


def test_refused_beside_it(modules: Path) -> None:
    """A folder that is not there, and a pool for what needs none, are errors of their own keys."""
    assert refused(modules, "shop:loop", 'pool = "process"\n').startswith(
        "10 watch[0].step[0].pool"
    )
    (modules / "modules").rename(modules / "elsewhere")
    assert refused(modules, "shop:load").startswith("9 watch[0].step[0].path")


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("shop:load", ThreadFunctionHandler),
        ("shop:loader.load", ThreadFunctionHandler),
        ("shop:loop", AsyncFunctionHandler),
        ("shop:loader.load_async", AsyncFunctionHandler),
    ],
)
def test_accepted(modules: Path, function: str, kind: type[Handler]) -> None:
    """A function is called in the way that it was written for, a method of an object as well."""
    (modules / "config.toml").write_text(CONFIG.format(function=function))
    (step,) = load_whole(modules / "config.toml").watch[0].step
    assert isinstance(step, FunctionStep)
    assert step.path == (modules / "modules",)
    assert isinstance(handler_of(step, "node"), kind)


def test_job() -> None:
    """A job tells a function what it needs in the forms that Python programs use."""
    seen = Fingerprint(12, 0, 0, 7, 1)
    job = Job(7, Key("w", b"in/\xff"), b"/srv/in/\xff", "s", 2, "k", seen=seen)
    assert (job.relpath, job.name, job.watch) == ("in/\udcff", "\udcff", "w")
    assert os.fsencode(job.fspath) == os.fsencode(job) == b"/srv/in/\xff"
    assert (job.key, job.size, job.previous) == ("k", 12, None)
    given = Job(7, Key("w", b"a"), b"/a", "s", 2, "k", previous_json='{"rows":12}')
    assert (given.previous, given.size) == ({"rows": 12}, None)


async def test_function_that_cancels_itself() -> None:
    """A cancellation that nobody asked for is the function's failure, and no interruption."""

    async def load(_job: Job) -> None:
        raise asyncio.CancelledError

    outcome = await AsyncFunctionHandler(load, timeout=60).run(JOB)
    assert outcome.verdict == "retry"
    assert f"{outcome.error}".startswith("CancelledError")


async def test_function_that_outlives_its_timeout() -> None:
    """An async function that swallows its cancellation is waited for, and has failed."""

    async def load(_job: Job) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    outcome = await AsyncFunctionHandler(load, timeout=0.05).run(JOB)
    assert (outcome.verdict, outcome.error) == ("retry", "timed out after 0.05s")


class Stuck:
    """A function that blocks until it is let go."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.calls = 0
        self.go = threading.Event()

    def __call__(self, _job: Job) -> None:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.go.wait(20)
        self.inside -= 1


async def test_thread_that_is_out_of_time() -> None:
    """A thread goes on after its timeout: its file and its place wait until it has returned."""
    stuck = Stuck()
    handler = ThreadFunctionHandler(stuck, threads=1, timeout=0.1, kill_after=60)
    late = await handler.run(JOB)
    assert late.verdict == "retry"
    assert f"{late.error}".startswith("timed out after 0.1s: it still runs")
    again = await handler.run(JOB)
    assert (again.verdict, again.error) == (
        "retry",
        "an attempt before this one still runs, in a thread",
    )
    other = await handler.run(Job(8, Key("w", b"b"), b"/b", "s", 1, "k"))
    assert other.verdict == "unavailable"
    assert f"{other.error}".endswith("all 1 threads have functions that do not return")
    stuck.go.set()
    assert (await handler.run(JOB)).verdict == "success"
    assert (stuck.most, stuck.calls) == (1, 2)
    await handler.close()


async def test_thread_that_is_cancelled() -> None:
    """A cancelled thread is waited for, for `kill_after`; and then its file waits for it."""
    stuck = Stuck()
    handler = ThreadFunctionHandler(stuck, threads=2, timeout=10, kill_after=0.05)
    run = asyncio.create_task(handler.run(JOB))
    while not stuck.calls:  # noqa: ASYNC110 - another thread has no event of ours
        await asyncio.sleep(0.001)
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    again = asyncio.create_task(handler.run(JOB))
    await asyncio.sleep(0)
    assert stuck.calls == 1
    stuck.go.set()
    assert (await again).verdict == "success"
    assert stuck.most == 1
    await handler.close()


async def test_no_threads_left() -> None:
    """Without a thread to call it in, the function is not called, and not later on either."""
    attempts: list[int] = []
    handler = ThreadFunctionHandler(
        lambda job: attempts.append(job.attempt), threads=2, timeout=60, kill_after=60
    )
    with shortage.of_threads():
        assert (await handler.run(JOB)).verdict == "defer"
    assert (await handler.run(replace(JOB, attempt=3))).verdict == "success"
    await handler.close()
    assert attempts == [3]


async def test_threads_are_started_as_needed() -> None:
    """One job after the other takes one thread, however many there may be."""
    names: set[Any] = set()
    handler = ThreadFunctionHandler(
        lambda _job: names.add(threading.current_thread().name),
        threads=8,
        timeout=60,
        kill_after=60,
    )
    for _ in range(8):
        await handler.run(JOB)
    await handler.close()
    assert len(names) == 1
