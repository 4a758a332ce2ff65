"""What is kept in the database for `status`: how each tree sees, and how each step stands."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from daemon.engine.ledger import Ledger
from daemon.engine.standing import Standings, told
from daemon.engine.trees import Tree
from daemon.engine.turn import turn_with

TURN_SECONDS = 1.0
# How a tree is seen is written within a turn. But a burst changes the numbers all the time, and
# every canary finds another latency, for ever, which must not make an idle tree write all day.
EVERY_SECONDS, LATENCY_EVERY_SECONDS = 5.0, 60.0


class _Kept(NamedTuple):
    """What was written last and when; `steady` is the same without the latency, `how` the mode."""

    text: str
    steady: str
    how: tuple[str, str | None]
    at: float


class Snapshots:
    """Writes `tree.detection` down when it has changed, and not too often.

    `news` comes with what changes how a tree is seen, and that is said in a line.
    """

    def __init__(self, trees: Mapping[str, Tree], ledger: Ledger, news: asyncio.Event) -> None:
        self._trees = trees
        self._ledger = ledger
        self._news = news
        self._kept: dict[str, _Kept] = {}

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            for tree in self._trees.values():
                if self._is_due(tree):
                    await self.keep(tree)
            await turn_with(self._news, TURN_SECONDS)

    async def keep(self, tree: Tree) -> None:
        """Write it down now, if it has changed."""
        text = tree.detection.told()
        before = self._kept.get(tree.name)
        if before is not None and before.text == text:
            return
        now = asyncio.get_running_loop().time()
        self._kept[tree.name] = _Kept(text, _steady(tree), _how(tree), now)
        await self._ledger.insist(
            "write", partial(self._ledger.store.keep_detection, tree.name, text)
        )

    def _is_due(self, tree: Tree) -> bool:
        kept = self._kept.get(tree.name)
        if kept is None or kept.how != _how(tree):
            return True
        age = asyncio.get_running_loop().time() - kept.at
        if age < EVERY_SECONDS:
            return False
        return age >= LATENCY_EVERY_SECONDS or _steady(tree) != kept.steady


def _steady(tree: Tree) -> str:
    return replace(tree.detection, latency_us=None).told()


def _how(tree: Tree) -> tuple[str, str | None]:
    return tree.detection.mode, tree.detection.reason


class Bulletin:
    """Writes down how the steps of each watch stand, whenever that has changed: with `news`."""

    def __init__(
        self,
        watches: Iterable[str],
        ledger: Ledger,
        standings: Callable[[str], Standings],
        news: asyncio.Event,
    ) -> None:
        self._watches = list(watches)
        self._ledger = ledger
        self._standings = standings
        self._news = news
        self._kept: dict[str, str] = {}

    async def run(self, resumed: asyncio.Event) -> None:
        """Look for changes until cancelled.

        Not before it is known how they stood when a former run ended: it stands where this writes.
        """
        await resumed.wait()
        while True:
            for watch in self._watches:
                await self.keep(watch)
            await turn_with(self._news, TURN_SECONDS)

    async def keep(self, watch: str) -> None:
        """Write it down now, if it has changed."""
        text = told(self._standings(watch))
        if self._kept.get(watch) != text:
            keep = partial(self._ledger.store.keep_steps, watch, text)
            await self._ledger.insist("write", keep)
            self._kept[watch] = text
