"""The steps of a watch: what they have in common, and what each kind of handler takes.

A step's kind is the key that says what runs: `command`. Every kind has its own model, so that a key
that belongs to another kind is refused like any other that is not known.
"""

from typing import Annotated, Literal

from msgspec import Struct

from daemon import config_values as values
from daemon.config_report import Finding, WrongValueError, wrong
from daemon.config_tables import Example, listing, table

Name = Annotated[str, values.name]
Duration = Annotated[float, values.duration]
Span = Annotated[float, values.span]
Count = Annotated[int, values.whole(1)]
Share = Annotated[float, values.number(0, 1)]


def _command(value: object) -> tuple[str, ...]:
    command = listing(values.argument)(value)
    if not command or not command[0]:
        remedy = 'write a list: ["program", "argument", ...]'
        raise wrong(value, remedy, "found no program")
    return command


class Backoff(Struct, frozen=True, kw_only=True):
    """`backoff` of a step: how long a failed file waits for its next attempt."""

    first: Span = 1.0
    factor: Annotated[float, values.number(1)] = 2.0
    max: Span = 300.0
    jitter: Share = 0.2

    def __post_init__(self) -> None:
        """Refuse a first wait that is longer than the longest."""
        _in_order(self.first, self.max)


class Breaker(Struct, frozen=True, kw_only=True):
    """`breaker` of a step: after how many failures in a row, no file's fault, it is left alone."""

    after: Count = 5
    first: Span = 1.0
    max: Span = 300.0

    def __post_init__(self) -> None:
        """Refuse a first wait that is longer than the longest."""
        _in_order(self.first, self.max)


def _in_order(first: float, longest: float) -> None:
    if first > longest:
        found = f"first ({first:g} s) is longer than max ({longest:g} s)"
        raise WrongValueError([Finding(("first",), found, "let first be at most max")])


class Step(Struct, frozen=True, kw_only=True):
    """`[[watch.step]]`: one thing that is done with each file, by any kind of handler."""

    name: Annotated[Name, Example('name = "load"')]
    timeout: Span = 300.0
    kill_after: Duration = 5.0
    concurrency: Annotated[int, values.whole(1, 1024)] = 1
    attempts: Count = 5
    backoff: Backoff = Backoff()
    breaker: Breaker = Breaker()
    per_directory: Annotated[int | None, values.whole(1)] = None
    max_per_minute: Annotated[int | None, values.whole(1, 1_000_000)] = None
    on_change: Literal["finish", "cancel"] = "finish"


class CommandStep(Step, frozen=True, kw_only=True):
    """A step that runs a program once for each file."""

    command: Annotated[
        tuple[str, ...], _command, Example('command = ["/usr/local/bin/load", "{path}"]')
    ]


# By the key that only a step of this kind has, and must have.
KINDS: dict[str, type[Step]] = {"command": CommandStep}


def read_step(value: object) -> Step:
    """A step of the kind that its keys say; of the first where they say none."""
    found = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    if len(found) > 1:
        remedy = "one step is of one kind: make two of it, or leave all but one away"
        raise WrongValueError([Finding((found[1],), f"found beside {found[0]!r}", remedy)])
    return table(KINDS[found[0] if found else next(iter(KINDS))])(value)
