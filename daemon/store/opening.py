"""Which kind of store a configuration names, opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from daemon.locate import DATABASE
from daemon.store import Store


@asynccontextmanager
async def open_store(url: str, state_dir: Path) -> AsyncIterator[Store]:
    """Open (and create or migrate) the store that the configuration names, and close it again.

    Raises:
        StoreTooNew: a newer treewarden wrote it.
        StoreUnavailable: it cannot be opened now.
    """
    if url != "sqlite":
        raise ValueError(f"no such store: {url}")
    from daemon.store.sqlite import SqliteStore  # noqa: PLC0415 - only the chosen kind is imported

    async with SqliteStore.open(state_dir / DATABASE) as store:
        yield store
