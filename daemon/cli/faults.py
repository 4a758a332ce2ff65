"""Faults to put into a running engine: before a commit, after it, and in a guard."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from daemon.core.facts import Facts
from daemon.core.lifecycle import TABLE, Edge
from daemon.core.model import Event, Record, State, Transition
from daemon.store import Store


class InjectedFault(Exception):  # noqa: N818 - it is one
    """Raised on purpose."""


class FaultyStore:
    """A store whose next `apply` fails when asked to; all else goes to the real one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before: Exception | None = None
        self.after: Exception | None = None

    @classmethod
    def around(cls, store: Store) -> Store:
        """A faulty store as the ledger takes it."""
        return cast("Store", cls(store))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a store has
        return getattr(self._store, name)

    async def apply(self, batch: Sequence[tuple[Transition, Record]], journaled: int) -> list[bool]:
        """See `Store`; fails once before or once after the real commit."""
        error, self.before = self.before, None
        if error is not None:
            raise error
        won = await self._store.apply(batch, journaled)
        error, self.after = self.after, None
        if error is not None:
            raise error
        return won


@contextmanager
def broken_guard(state: State, event: Event) -> Iterator[None]:
    """While inside, the first guard of an edge raises."""
    edges = TABLE[state, event]
    TABLE[state, event] = (Edge("broken", _raise, edges[0].to), *edges[1:])
    try:
        yield
    finally:
        TABLE[state, event] = edges


def _raise(_facts: Facts) -> bool:
    raise InjectedFault("in a guard")
