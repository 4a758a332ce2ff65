"""The threads that ask the disk of one tree, which may hang: that holds up nobody else.

And its own files not for ever: an answer that does not come is an error, as any other of a disk.
"""

import asyncio
from collections.abc import Sequence

from daemon.core.settle import Look
from daemon.engine.digests import Digests
from daemon.engine.disk import Question, look_at_all
from daemon.engine.line import Line, NoAnswer

# A call to the kernel that takes longer is as good as one that never returns: a disk that has to
# begin to turn is asked again when it does.
ANSWER_SECONDS = 2.0


class Disk:
    """What one tree is asked by: for what is known in a moment, for scans, and for whole files.

    All of them start with the first call; those for scans and files end when there is no more.
    """

    def __init__(self, name: str) -> None:
        self.looks = Line(f"disk-{name}", ANSWER_SECONDS)
        # However long it takes to list a directory, only this tree waits for that.
        self.scan = Line(f"scan-{name}", patience=None)
        self.digests = Digests(name)

    async def look(self, questions: Sequence[Question]) -> list[Look]:
        """One look each; those of a disk that hangs are errors."""
        try:
            return await self.looks.run(lambda: look_at_all(questions, self.looks.go_on))
        except NoAnswer as error:
            return [Look("error", error=f"{error.strerror}")] * len(questions)

    async def close(self) -> None:
        """End the threads; one that hangs is left behind."""
        await asyncio.gather(self.looks.close(), self.scan.close(), self.digests.close())
