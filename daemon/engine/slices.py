"""Long lists in slices, so that others have the loop in between."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

# What the loop does with so many files takes it a millisecond or two.
SLICE = 256
Item = TypeVar("Item")


def slices(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Some of the items at a time. Whoever does not wait for anything else says `sleep(0)`."""
    waiting = iter(items)
    while some := list(islice(waiting, SLICE)):
        yield some
