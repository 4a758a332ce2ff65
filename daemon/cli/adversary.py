"""The adversarial checks of `treewarden selftest`, each against a real engine in a folder.

A check is a coroutine that returns what it saw, in a few words, or raises `CheckFailed`.
"""

import asyncio
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daemon.cli.faults import FaultyStore, InjectedFault, broken_guard
from daemon.cli.harness import Rig, open_rig
from daemon.cli.invariants import broken_invariants
from daemon.config import Settle, Watch
from daemon.config_steps import CommandStep
from daemon.core.equivalence import differences
from daemon.core.lifecycle import TABLE
from daemon.core.model import Key, Transition
from daemon.locate import DATABASE
from daemon.schema import faults_of_line

TEN = 10
SETTLE_SECONDS = 5.0
ENDS = ("done", "quarantined")
Check = Callable[[Path], Awaitable[str]]
Scenario = Callable[[Rig], Awaitable[str]]


class CheckFailed(Exception):  # noqa: N818 - read as a verdict
    """The machine, or this program on it, does not do what it must."""


def require(fact: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion that -O keeps
    """Raise `CheckFailed` unless the fact holds."""
    if not fact:
        raise CheckFailed(otherwise)


async def different_files(rig: Rig) -> str:
    """Ten files started at the same moment are all started."""
    keys = await _ready(rig, [f"file-{number}" for number in range(TEN)])
    results = await asyncio.gather(*(rig.send(key, "start") for key in keys))
    started = sum(isinstance(result, Transition) for result in results)
    require(started == TEN, f"{started} of {TEN} were started")
    for key in keys:
        row = await rig.state(key, ENDS)
        require(row.state == "done", f"{key.path!r} ended as {row.state}: {row.error}")
    return f"{started} committed, all done"


async def same_file(rig: Rig) -> str:
    """One file started ten times at the same moment is started once."""
    (key,) = await _ready(rig, ["contended"])
    results = await asyncio.gather(*(rig.send(key, "start") for _ in range(TEN)))
    started = sum(isinstance(result, Transition) for result in results)
    require(started == 1, f"{started} starts were committed")
    await rig.state(key, ENDS)
    outcomes = Counter(await _outcomes(rig, key, "start"))
    require(outcomes == {"success": 1, "rejected": TEN - 1}, f"lines: {dict(outcomes)}")
    records = [record for record in await rig.store.owed(0, 1000) if record.path == key.path]
    rows = sum(record.event == "start" for record in records)
    require(rows == 1, f"{rows} rows written")
    return "1 success, 9 rejected, 1 row written"


async def before_commit(rig: Rig) -> str:
    """An error before the commit leaves the state as it was."""
    (key,) = await _ready(rig, ["before-commit"])
    version = (await rig.row(key)).version
    _faulty(rig).before = InjectedFault("before commit")
    await rig.send(key, "start")
    row = await rig.row(key)
    require((row.state, row.version) == ("ready", version), f"the row is {row.state}")
    outcomes = await _outcomes(rig, key, "start")
    require(outcomes == ["failed"], f"lines: {outcomes}")
    return "state unchanged, one line with outcome failed"


async def after_commit(rig: Rig) -> str:
    """An error after the commit leaves the state advanced, and its line is written."""
    (key,) = await _ready(rig, ["after-commit"])
    _faulty(rig).after = InjectedFault("after commit")
    await rig.send(key, "hold")
    row = await rig.row(key)
    require(row.state == "held", f"the row is {row.state}")
    outcomes = await _outcomes(rig, key, "hold")
    require(outcomes == ["failed", "success"], f"lines: {outcomes}")
    return "state advanced, line written"


async def in_guard(rig: Rig) -> str:
    """An error in a guard leaves the state as it was."""
    (key,) = await _ready(rig, ["in-guard"])
    with broken_guard("ready", "start"):
        await rig.send(key, "start")
    row = await rig.row(key)
    require(row.state == "ready", f"the row is {row.state}")
    return "state unchanged"


async def lines_have_their_fields(rig: Rig) -> str:
    """Every line of a run with successes, refusals and failures is as documented."""
    for scenario in (different_files, same_file, before_commit, in_guard):
        await scenario(rig)
    lines = await rig.lines()
    faults = [fault for line in lines for fault in faults_of_line(line)]
    require(not faults, "; ".join(faults[:5]))
    return f"{len(lines)} lines"


async def database_invariants(rig: Rig) -> str:
    """States known, edges legal, versions without gaps, rows as their last transition says."""
    for scenario in (different_files, same_file, after_commit, before_commit):
        await scenario(rig)
    path = rig.log.parent / "state" / DATABASE
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        broken = broken_invariants(db)
        ((count,),) = db.execute("SELECT count(*) FROM transitions")
    db.close()
    require(not broken, "; ".join(broken[:5]))
    return f"{count} transitions"


async def nothing_leaks(folder: Path) -> str:
    """Threads, tasks and descriptors are back where they were after the engine is gone."""
    await _in_rig(different_files, folder / "leak-first")
    # The first round opened what is kept for good; from now on nothing may grow.
    before = _resources()
    await _in_rig(different_files, folder / "leak-again")
    after = await _at_most(before)
    grown = {name: (before[name], after[name]) for name in before if after[name] > before[name]}
    require(not grown, f"grown: {grown}")
    return ", ".join(f"{count} {name}" for name, count in after.items())


async def _at_most(before: dict[str, int]) -> dict[str, int]:
    """What is held, once that is no more than before, or at the deadline: threads end in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_SECONDS
    now = _resources()
    while any(now[name] > before[name] for name in now) and loop.time() < deadline:
        await asyncio.sleep(0.01)
        now = _resources()
    return now


async def table_equals_engine(_folder: Path) -> str:
    """The compiled table decides as python-statemachine's engine does."""
    found = await asyncio.to_thread(differences)
    require(not found, "; ".join(found[:3]))
    return f"{sum(len(edges) for edges in TABLE.values())} edges"


def _resources() -> dict[str, int]:
    # The loop's own pool keeps its threads, and starts another whenever none is idle.
    threads = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]
    return {
        "threads": len(threads),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names only
    }


async def _ready(rig: Rig, names: list[str]) -> list[Key]:
    """Files that are ready, seen through the real disk."""
    keys = [rig.write(name) for name in names]
    await asyncio.gather(*(rig.send(key, "look") for key in keys))
    for key in keys:
        await rig.state(key, ["ready"])
    return keys


async def _outcomes(rig: Rig, key: Key, event: str) -> list[str]:
    """The outcomes of the lines about one file and event, sorted."""
    lines = [line for line in await rig.lines() if line.get("path") == key.path.decode()]
    return sorted(line["outcome"] for line in lines if line["event"] == event)


def _faulty(rig: Rig) -> Any:  # noqa: ANN401 - the store is put in as one
    return rig.service.ledger.store


async def _in_rig(scenario: Scenario, folder: Path) -> str:
    tree = folder / "tree"
    tree.mkdir(parents=True)
    step = CommandStep(name="true", command=("true",), concurrency=TEN)
    watch = Watch(name="selftest", path=tree, settle=Settle(quiet=0.0), step=(step,))
    async with open_rig(folder, watch, FaultyStore.around) as rig:
        return await scenario(rig)


def _own_rig(scenario: Scenario) -> Check:
    """A check that gets an engine, and a folder, of its own."""

    async def check(folder: Path) -> str:
        return await _in_rig(scenario, folder / scenario.__name__)

    return check


CHECKS: dict[str, Check] = {
    "ten different files at once": _own_rig(different_files),
    "ten at once on one file": _own_rig(same_file),
    "every line has its fields": _own_rig(lines_have_their_fields),
    "database invariants": _own_rig(database_invariants),
    "error before commit": _own_rig(before_commit),
    "error after commit": _own_rig(after_commit),
    "error in a guard": _own_rig(in_guard),
    "threads, tasks and descriptors": nothing_leaks,
    "compiled table equals the engine": table_equals_engine,
}
