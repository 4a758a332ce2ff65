"""The real engine in a folder of its own, driven by hand: for `selftest` and for the tests."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from daemon.config import Config, Daemon, Watch
from daemon.core.model import Event, Key, Record, Row, Trigger
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.output import Output
from daemon.engine.pipeline import Result
from daemon.engine.tuning import tune_process
from daemon.ops.systemd import Notifier
from daemon.service import Service
from daemon.store import Store
from daemon.store.opening import open_store

DEADLINE_SECONDS = 30.0
# Turns of the loop within which the journal has heard of what is committed.
TOLD_WITHIN = 20


class TellingJournal(Journal):
    """A journal that says when something was committed."""

    def __init__(self, output: Output, store: Store, position: int, level: str, node: str) -> None:
        super().__init__(output, store, position, level, node)
        self.news = asyncio.Event()

    def committed(self, records: Sequence[Record], lines: bytes | None = None) -> None:
        """See `Journal`."""
        super().committed(records, lines)
        self.news.set()


class Rig:
    """Inbox, pipeline, ledger, journal and dispatcher on a real database, without the sources."""

    def __init__(self, service: Service, store: Store, journal: TellingJournal, log: Path) -> None:
        self.service = service
        self.store = store
        self.journal = journal
        self.log = log
        self.watch = next(iter(service.trees))

    def key(self, name: str) -> Key:
        """The key of a file in the rig's watch."""
        return Key(self.watch, os.fsencode(name))

    def write(self, name: str, text: str = "content\n") -> Key:
        """Put a file into the watched folder."""
        path = self.service.trees[self.watch].watch.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return self.key(name)

    async def send(self, key: Key, event: Event | str, **fields: Any) -> Result:  # noqa: ANN401
        """One trigger through the pipeline; what came of it."""
        trigger = msgspec.convert({"key": key, "event": event, "cause": "test", **fields}, Trigger)
        return await self.service.pipeline.handle(trigger)

    async def row(self, key: Key) -> Row:
        """The row as the database has it."""
        (row,) = await self.store.rows([key])
        return row or Row(0, key)

    async def state(self, key: Key, wanted: Iterable[str]) -> Row:
        """Wait until the file is in one of these states.

        Raises:
            TimeoutError: it does not get there.
        """
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (row := await self.row(key)).state not in wanted:
                await self.journal.news.wait()
                self.journal.news.clear()
        return row

    async def lines(self) -> list[dict[str, Any]]:
        """Every line written so far, once all that is owed is written."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            # The database shows a transition a moment before the journal is told of it.
            for _ in range(TOLD_WITHIN):
                await asyncio.sleep(0)
            await self.journal.caught_up.wait()
        return [msgspec.json.decode(line) for line in self.log.read_bytes().splitlines()]


@asynccontextmanager
async def open_rig(
    folder: Path,
    watch: Watch,
    wrap: Callable[[Store], Store] = lambda store: store,
    *,
    places: int | None = None,
) -> AsyncIterator[Rig]:
    """Build an engine in `folder`, run its pipeline and journal, and take it down in order.

    `wrap` may put something between the ledger and its store: a fault, most often. `places`: how
    many files may be handled at once in all.
    """
    tune_process()
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    own = Daemon(node="rig", state_dir=state, runtime_dir=state, concurrency=places)
    async with open_store("sqlite", state) as store:
        log = folder / "log"
        journal = TellingJournal(
            Output.to(str(log)), store, await store.journaled(), "debug", "rig"
        )
        ledger = Ledger(wrap(store), await store.last_ids(), journal)
        config = Config(daemon=own, watch=(watch,))
        service = Service(config, store, journal, ledger, Notifier({}))
        await service.know_trees()
        writing = asyncio.create_task(journal.run())
        working = asyncio.create_task(service.pipeline.run())
        try:
            yield Rig(service, store, journal, log)
        finally:
            await service.pipeline.drop_waiting()
            await service.dispatcher.drain(0, asyncio.Event())
            ledger.closing()
            await service.inbox.idle()
            working.cancel()
            await asyncio.wait([working])
            await ledger.close()
            await service.close()
            journal.close()
            await writing
