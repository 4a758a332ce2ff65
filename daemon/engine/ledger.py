"""The one way out to the database: group commit, and what to do when it cannot be written."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from msgspec.structs import replace

from daemon.core.model import Key, Record, Row, State, Transition
from daemon.engine.batching import Batcher
from daemon.engine.journal import Journal
from daemon.errors import StoreLost, StoreUnavailable
from daemon.store import LastIds, Store
from daemon.store.rows import record_of_transition

RETRY_SECONDS = 0.5
# Transitions in one commit: half of what the pipeline has in flight, so that the other half is
# being decided meanwhile. A first start takes 4 % longer with 1,024.
TOGETHER = 2_048
# Rows that are read at once where there may be any number of them.
PAGE = 1_000
# Rows in memory, about 1 KB each.
RECENT = 2_048
# Nothing more is expected of a file in these for a while.
_AT_REST = frozenset({"done", "gone"})
Answer = TypeVar("Answer")
# What is committed, and how it is told.
Pair: TypeAlias = tuple[Transition, Record]


class Ledger:
    """Commits transitions in batches. What queues during one commit is the next one.

    While the database cannot be written the batch stays here and is tried again, and everybody
    who waits for it waits: nothing is lost, and nothing starts whose end could not be recorded.
    """

    def __init__(
        self,
        store: Store,
        last: LastIds,
        journal: Journal,
        status: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`status` is told in words whenever the database goes away, and when it is back."""
        self.store = store
        self._status = status
        self._file_id, self._seq = last
        self._journal = journal
        self._commits: Batcher[Transition, Transition | None] = Batcher(
            self._commit, TOGETHER, at_once=2, whole=True
        )
        # Batches are written one after another; a full one is made ready while the last is written.
        self._writing = asyncio.Lock()
        self._reads: Batcher[Key, Row | None] = Batcher(self._read)
        self._notes: Batcher[Row, None] = Batcher(self._note)
        self._recent: OrderedDict[Key, Row] = OrderedDict()
        self._away: set[str] = set()
        self._away_since = 0.0
        self._closing = False
        # How many transitions were committed since the start.
        self.committed = 0
        # Set while the database can be used, as far as the last try tells.
        self.available = asyncio.Event()
        self.available.set()

    def commit(
        self, transitions: Sequence[Transition]
    ) -> asyncio.Future[Sequence[Transition | None]]:
        """Resolves after COMMIT: to each as it is on record, or None if another had moved its row.

        A new file has got its number by then.

        All of them are in one transaction. Any exception but a database that is away reaches
        whoever meets it also when nobody else's are in the transaction.
        """
        return self._commits.ask(transitions)

    def note_ctime(self, row: Row) -> None:
        """The file shows this ctime now, and the content of its row as before.

        Nothing that is known of the file depends on it: one that is not written is found again.
        """
        if row.key in self._recent:
            self._recent[row.key] = row
        self._notes.ask([row]).add_done_callback(lambda noted: noted.exception())

    async def rows(self, keys: Sequence[Key]) -> list[Row | None]:
        """The rows of some paths, None where there is none, in the order asked.

        What was committed lately is in memory, for a file on its way has several transitions in a
        short time; the rest is read, together with what else is asked.
        """
        recent = self._recent
        found = [recent.get(key) for key in keys]
        if missing := [key for key, row in zip(keys, found, strict=True) if row is None]:
            read = dict(zip(missing, await self._reads.ask(missing), strict=True))
            found = [row or read[key] for key, row in zip(keys, found, strict=True)]
        return found

    async def in_state(self, state: State, watch: str) -> AsyncIterator[list[Row]]:
        """The files of a watch that are in a state, page by page, as they are when it is read."""
        last = 0
        while rows := await self.insist(
            "read", partial(self.store.in_state, state, watch, last, PAGE)
        ):
            yield rows
            last = rows[-1].id

    def remember(self, row: Row) -> None:
        """This row was just read, and is wanted again in a moment.

        Should it have moved on since, the commit that follows loses its race, and reads it anew.
        """
        if row.key not in self._recent:
            self._keep(row)

    def recalls(self, key: Key) -> bool:
        """Whether something was committed lately about this path."""
        return key in self._recent

    def closing(self) -> None:
        """From now on a database that is away is an error: `StoreUnavailable` for who waits."""
        self._closing = True

    async def close(self) -> None:
        """Wait until all that was handed over is committed, or has met its error."""
        self.closing()
        await self._commits.close()
        await self._notes.close()
        await self._reads.close()

    async def insist(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call until the database answers; say when it goes away and when it is back.

        Raises:
            StoreLost: it will not come back.
            StoreUnavailable: it is away while the daemon stops.
        """
        while True:
            try:
                answer = await call()
            except StoreUnavailable as error:
                self._gone(what, error)
                if self._closing or isinstance(error, StoreLost):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._answered(what)
                return answer

    def _gone(self, what: str, error: StoreUnavailable) -> None:
        if not self._away:
            self._away_since = asyncio.get_running_loop().time()
            self.available.clear()
            self._journal.daemon("store_unavailable", "error", error=str(error))
            self._status(f"database unavailable: {error}")
        self._away.add(what)

    def _answered(self, what: str) -> None:
        """What failed has to succeed: a lock that stops writers lets readers pass."""
        if what not in self._away:
            return
        self._away.discard(what)
        if not self._away:
            self.available.set()
            seconds = asyncio.get_running_loop().time() - self._away_since
            self._journal.daemon("store_back", away_seconds=round(seconds, 3))
            self._status("the database is back")

    async def _read(self, keys: Sequence[Key]) -> list[Row | None]:
        return await self.insist("read", lambda: self.store.rows(keys))

    async def _note(self, rows: Sequence[Row]) -> list[None]:
        await self.insist("write", lambda: self.store.note_ctimes(rows))
        return [None] * len(rows)

    async def _commit(self, transitions: Sequence[Transition]) -> list[Transition | None]:
        # Numbered in the order in which they get the lock: what is tried again is so anew.
        pairs = [self._number(transition) for transition in transitions]
        batch = self.store.compose(pairs)
        records = [record for _, record in pairs]
        # While the database's thread waits for the disk this one would have nothing to do.
        lines: list[bytes | None] = []
        asyncio.get_running_loop().call_soon(lambda: lines.append(self._journal.render(records)))
        async with self._writing:
            won = await self._write(batch)
            if all(won):
                self._journal.committed(records, lines[0] if lines else None)
            else:
                self._journal.committed([each for each, ok in zip(records, won, strict=True) if ok])
        self.committed += sum(won)
        return [self._outcome(pair[0], ok) for pair, ok in zip(pairs, won, strict=True)]

    async def _write(self, batch: Sequence[Pair]) -> list[bool]:
        try:
            # A batch that was written though its writer was told otherwise wins on the next try.
            return await self.insist(
                "write", lambda: self.store.apply(batch, self._journal.position)
            )
        except BaseException:
            # It may have been written or not: what is in memory may be of the past.
            for transition, _ in batch:
                self._recent.pop(transition.before.key, None)
            self._journal.doubtful()
            raise

    def _outcome(self, transition: Transition, won: bool) -> Transition | None:  # noqa: FBT001 - a fact
        before, after = transition.before, transition.after
        self._recent.pop(before.key, None)
        if not won:
            return None
        if after.state not in _AT_REST:
            self._keep(after)
        return transition

    def _keep(self, row: Row) -> None:
        self._recent[row.key] = row
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _number(self, transition: Transition) -> Pair:
        self._seq += 1
        if not transition.before.version:
            self._file_id += 1
            after = replace(transition.after, id=self._file_id)
            transition = replace(transition, after=after)
        return transition, record_of_transition(transition, self._seq)
