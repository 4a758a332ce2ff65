"""Paths at which nothing is, and that have no row: they may have been folders with rows below.

Most were not: whoever writes under another name and renames leaves one of these a file.
"""

import asyncio

from daemon.core.model import Key


class Suspects:
    """Collects them until somebody asks the database."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}
        self._any = asyncio.Event()

    def add(self, key: Key) -> None:
        """One more."""
        self._keys[key] = None
        self._any.set()

    async def take(self) -> list[Key]:
        """All of them, when there are any."""
        while not self._keys:
            self._any.clear()
            await self._any.wait()
        found, self._keys = list(self._keys), {}
        return found
