"""When those look who look once in a while: all at the same moment."""

import asyncio


async def turn(seconds: float) -> None:
    """Sleep until the loop's clock shows the next multiple of this.

    So all that look once a second do so in one go: most of what they cost is to wake the machine.
    """
    left = seconds - asyncio.get_running_loop().time() % seconds
    # A timer may ring a little early, and the turn that it was for be still to come.
    await asyncio.sleep(left if left > seconds / 100 else left + seconds)
