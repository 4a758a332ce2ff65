"""The engine of these tests: the real one on a real database, in a folder of its own.

Whatever a test does to it, at the end every line must be as documented, and the database sound.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

import pytest
from msgspec.structs import replace

from daemon.cli.harness import Rig, open_rig
from daemon.cli.invariants import broken_invariants
from daemon.config import Settle, Watch
from daemon.config_steps import CommandStep
from daemon.core.model import Event, Key, Row, State, Transition
from daemon.engine import newcomers
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.output import Output
from daemon.engine.turns import Turn
from daemon.handlers import Handler, Job, Outcome
from daemon.schema import faults_of_line
from daemon.store import Store
from daemon.store.opening import open_store

DEADLINE = 60
Answer = TypeVar("Answer")


def key(name: str | bytes, watch: str = "incoming") -> Key:
    return Key(watch, name.encode() if isinstance(name, str) else name)


def step_on(
    row: Row, event: Event, to: State, attempt_id: str = "a-1", **changes: Any
) -> Transition:
    after = replace(row, state=to, version=row.version + 1, **changes)
    return Transition(row, after, event, attempt_id, "node")


def born(name: str | bytes, file_id: int = 0, **changes: Any) -> Transition:
    return step_on(Row(file_id, key(name)), "discover", "settling", **changes)


def commit(ledger: Ledger, transition: Transition) -> asyncio.Future[Row | None]:
    """Hand one transition over, at once; resolves to its row."""

    async def row() -> Row | None:
        (committed,) = await committing
        return committed.after if committed else None

    committing = ledger.commit([transition])
    return asyncio.ensure_future(row())


async def row_of(ledger: Ledger, path: Key) -> Row | None:
    (row,) = await ledger.rows([path])
    return row


def only(answers: asyncio.Future[Sequence[Answer]]) -> asyncio.Future[Answer]:
    """The answer to a question that was asked alone."""

    async def first() -> Answer:
        (answer,) = await answers
        return answer

    return asyncio.ensure_future(first())


def valid_lines(log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_bytes().splitlines() if line]
    assert [fault for line in lines for fault in faults_of_line(line)] == []
    return lines


class Gate:
    """A handler whose jobs stand at a gate until the test says how they end."""

    def __init__(self) -> None:
        self.jobs: asyncio.Queue[tuple[Job, asyncio.Future[Outcome]]] = asyncio.Queue()
        self.inside = 0
        self.most = 0
        self.closed = False

    async def run(self, job: Job) -> Outcome:
        self.inside += 1
        self.most = max(self.most, self.inside)
        ending: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.jobs.put_nowait((job, ending))
        try:
            return await ending
        finally:
            self.inside -= 1

    async def close(self) -> None:
        self.closed = True

    async def next(self) -> tuple[Job, asyncio.Future[Outcome]]:
        return await asyncio.wait_for(self.jobs.get(), DEADLINE)

    async def let_pass(self, outcome: Outcome | None = None) -> Job:
        job, ending = await self.next()
        ending.set_result(outcome or Outcome("success"))
        return job


class Open(Protocol):
    def __call__(
        self,
        handler: Handler | None = None,
        *,
        wrap: Callable[[Store], Store] = ...,
        quiet: float = 0.0,
        steps: int = 1,
        concurrency: int = 4,
        step: Mapping[str, Any] = ...,
        places: int | None = ...,
        **watch: Any,
    ) -> AbstractAsyncContextManager[Rig]: ...


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def engine(tmp_path: Path, tree: Path) -> Open:
    """Open the engine on `tree`; its steps are `load`, `index`, ..., each run by `handler`.

    `step`: what is changed in each of them. `places`: of the whole daemon.
    """

    @asynccontextmanager
    async def opened(
        handler: Handler | None = None,
        *,
        wrap: Callable[[Store], Store] = lambda store: store,
        quiet: float = 0.0,
        steps: int = 1,
        concurrency: int = 4,
        step: Mapping[str, Any] = MappingProxyType({}),
        places: int | None = None,
        **watch: Any,
    ) -> AsyncIterator[Rig]:
        names = ("load", "index", "ship")[:steps]
        like = CommandStep(name="", command=("true",), concurrency=concurrency, attempts=3)
        made_steps = tuple(replace(like, name=name, **step) for name in names)
        made = Watch(name="incoming", path=tree, settle=Settle(quiet=quiet), step=made_steps)
        async with open_rig(tmp_path, replace(made, **watch), wrap, places=places) as rig:
            if handler is not None:
                (the_tree,) = rig.service.trees.values()
                rig.service.dispatcher.add(the_tree, dict.fromkeys(names, handler))
            async with asyncio.timeout(DEADLINE):
                yield rig
        valid_lines(tmp_path / "log")
        with closing(sqlite3.connect(tmp_path / "state" / "treewarden.db")) as db:
            assert broken_invariants(db) == []

    return cast("Open", opened)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Turn]:
    """Those that were judged for others as well."""
    turns: list[Turn] = []

    def judge(*given: Any) -> Turn:
        turns.append(Turn(*given))
        return turns[-1]

    monkeypatch.setattr(newcomers, "Turn", judge)
    return turns


@asynccontextmanager
async def background(*work: Any) -> AsyncIterator[None]:
    """Run what never ends beside a test, and end it; if it fails, so does the test."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [r for r in results if r and not isinstance(r, asyncio.CancelledError)] == []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store("sqlite", tmp_path) as opened:
        yield opened


@asynccontextmanager
async def journal_on(
    output: Output, store: Store, *, level: str = "debug", position: int = 0
) -> AsyncIterator[Journal]:
    """A journal that writes while inside, and has written all at the end."""
    journal = Journal(output, store, position, level, "node")
    writing = asyncio.create_task(journal.run())
    try:
        async with asyncio.timeout(DEADLINE):
            yield journal
            journal.close()
            await writing
    finally:
        writing.cancel()
        await asyncio.wait([writing])


@pytest.fixture
async def journal(tmp_path: Path, store: Store) -> AsyncIterator[Journal]:
    """A journal that writes to `log`; its lines are checked at the end."""
    async with journal_on(Output.to(str(tmp_path / "log")), store) as opened:
        yield opened
    valid_lines(tmp_path / "log")
