"""What waits for an explanation: as short as can be, and none of them for the others."""

import asyncio

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
