"""What waits for an explanation: as short as can be, and none of them for the others."""

import asyncio

import pytest

from daemon.core.model import Key, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.patience import Patience

KEYS = [Key("w", b"%d" % number) for number in range(100)]


async def test_all_at_once() -> None:
    """Those whose time is over come back together.

    Seen: each kept the next one back for 75 ms, and a hundred missing files were `gone` after 5 s.
    """
    inbox = Inbox()
    patience = Patience(inbox)
    for key in KEYS:
        patience.wait(Trigger(key, "look", "hint"))
    async with asyncio.timeout(20):
        taken = await inbox.take(1000)
    assert [trigger.key for trigger in taken] == KEYS
    assert all(trigger.waited for trigger in taken)
    assert len(patience) == 0


async def test_what_comes_later_keeps_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for what was on its way when its own time was over, and for nothing after that.

    Seen: under 100 changes a second each began to wait when the one before was through, and after
    half an hour removed files were 226 s behind.
    """
    monkeypatch.setattr("daemon.engine.patience.GRACE_SECONDS", 0.0)
    inbox = Inbox()
    patience = Patience(inbox)
    before, after = ([Trigger(key, "look", "hint")] for key in KEYS[:2])
    inbox.traffic.start(before)
    for key in KEYS[2:4]:
        patience.wait(Trigger(key, "look", "hint"))
        patience._release()
    assert len(patience) == 2
    inbox.traffic.start(after)
    inbox.traffic.finish(before)
    patience._release()
    assert len(patience) == 0
