"""A thread of our own for calls that block, with a future for each."""

from daemon.handlers.threads import Threads


class Worker(Threads):
    """Runs calls in order in one thread, which starts with the first of them."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1)
