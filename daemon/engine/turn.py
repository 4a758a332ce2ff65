"""When those look who look once in a while: all at the same moment."""

import asyncio
from contextlib import suppress

# Where nothing is said to have changed: an idle machine is not to be woken every second.
RARER = 10


async def turn(seconds: float) -> None:
    """Sleep until the loop's clock shows the next multiple of this.

    So all that look do so in one go: most of what they cost is to wake the machine.
    """
    await asyncio.sleep(_left(seconds))


async def turn_with(news: asyncio.Event, seconds: float) -> None:
    """The same when there is news, which it clears; if there is none, ten times as long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_left(RARER * seconds)):
            await news.wait()
            await turn(seconds)
    news.clear()


def _left(seconds: float) -> float:
    left = seconds - asyncio.get_running_loop().time() % seconds
    # A timer may ring a little early, and the turn that it was for be still to come.
    return left if left > seconds / 100 else left + seconds
