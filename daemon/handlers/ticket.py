"""Who may do what two could do, in different threads: whoever takes the ticket first."""


class Ticket:
    """Taken once, by whichever thread comes first."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = [None]

    def take(self) -> bool:
        """Whether it was nobody's, and is the caller's now. In any thread."""
        try:
            self._left.pop()
        except IndexError:
            return False
        return True
