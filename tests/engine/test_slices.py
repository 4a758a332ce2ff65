"""Work on long lists is done in slices."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from daemon.core.model import Event
from daemon.engine.slices import SLICE, slices
from daemon.engine.turns import Turn
from tests.engine.conftest import Open
from tests.engine.test_identity import scanned
from tests.engine.test_marking import put
from tests.engine.test_sets import MANIFEST


def test_slices() -> None:
    """All of the items in their order; of none there is no slice."""
    items = range(2 * SLICE + 1)
    assert [len(some) for some in slices(items)] == [SLICE, SLICE, 1]
    assert [item for some in slices(items) for item in some] == list(items)
    assert list(slices([])) == []


async def test_others_have_the_loop_while_a_set_settles(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the decisions about its members, and between what follows from their commit."""
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    names = [b"%d" % number for number in range(3 * SLICE)]
    for name in names:
        put(tree, name)
    put(tree, b"all.manifest", b"\n".join(names))
    async with engine(steps=0, **MANIFEST) as rig:
        pipeline = rig.service.pipeline
        judge, follow = pipeline._judge, pipeline._follow
        judged: set[int] = set()
        followed: set[int] = set()

        def noting_judge(turn: Turn, event: Event) -> Any:
            if turn.together:
                judged.add(rounds)
            return judge(turn, event)

        def noting_follow(turn: Turn, *rest: Any) -> Any:
            if turn.together:
                followed.add(rounds)
            return follow(turn, *rest)

        monkeypatch.setattr(pipeline, "_judge", noting_judge)
        monkeypatch.setattr(pipeline, "_follow", noting_follow)
        ticking = asyncio.create_task(count())
        await scanned(rig)
        ticking.cancel()
    assert len(judged) >= 3
    assert len(followed) >= 3
