"""How a step stands just now: what its lane knows beside the files, and `status` tells."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
from msgspec import Struct

from daemon.engine.ledger import Ledger

TURN_SECONDS = 1.0


class Standing(Struct, omit_defaults=True):
    """Times in microseconds since the epoch.

    `open_since`: what the step needs could not be reached so often that its files are left alone:
    `failures` in a row by now, the last of them `error`. A file tries it again at `probe_at`.
    `paused`: why nothing is started for a moment.
    """

    open_since: int | None = None
    failures: int = 0
    error: str | None = None
    probe_at: int | None = None
    paused: str | None = None


Standings = dict[str, Standing]
_decoder = msgspec.json.Decoder(Standings)


def told(standings: Standings) -> str:
    """As JSON, for the database."""
    return msgspec.json.encode(standings).decode()


def heard(text: str) -> Standings:
    """From that JSON, by the names of steps.

    Raises:
        msgspec.MsgspecError: another version wrote it.
    """
    return _decoder.decode(text)


class Bulletin:
    """Writes down how the steps of each watch stand, whenever that has changed."""

    def __init__(
        self, watches: Iterable[str], ledger: Ledger, standings: Callable[[str], Standings]
    ) -> None:
        self._watches = list(watches)
        self._ledger = ledger
        self._standings = standings
        self._kept: dict[str, str] = {}

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            for watch in self._watches:
                await self.keep(watch)
            await asyncio.sleep(TURN_SECONDS)

    async def keep(self, watch: str) -> None:
        """Write it down now, if it has changed."""
        text = told(self._standings(watch))
        if self._kept.get(watch) != text:
            keep = partial(self._ledger.store.keep_steps, watch, text)
            await self._ledger.insist("write", keep)
            self._kept[watch] = text
