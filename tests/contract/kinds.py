"""What the conformance suite needs to know of a kind of handler, and what it asks every kind to be.

`BEHAVIOURS` is the list of all that a handler can be like. A kind builds a handler for each of
them, or excuses itself with the reason why it cannot be like that: a test holds every kind to that.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from daemon.handlers import Handler

# A behaviour that waits opens the pipe `witness` of the folder, writes the line `up` into it, and
# holds it open: the end of file proves that nobody of it is left.
BEHAVIOURS = {
    "succeeds": "at once",
    "succeeds, talking": "having written to its standard output and error, where it has them",
    "succeeds, with a result": 'for the next step: {"rows": 12}',
    "says what came before": "retry, and its error ends with the result of the step before",
    "fails": "retry, and its error ends with: no route to host",
    "fails, naming its file": "retry, and its error ends with the path inside the watch",
    "fails, and says when": "retry after 7 seconds",
    "refuses": "reject, and its error ends with: not a table",
    "is unavailable": "unavailable: what it needs cannot be reached, and no file is to blame",
    "says what it got": "retry; its error ends with PATH|WATCH|STEP/ATTEMPT/VERSION|KEY",
    "says 10 MB": "retry; 10 MB of x and then ` the end`",
    "crashes": "dies without a word, the process that it runs in with it",
    "crashes on a.csv": "as above, at the file of that name; succeeds with any other",
    "answers garbage": "ends well, and says something that is no answer",
    "answers half": "begins an answer, and dies",
    "waits at a gate": "witness; reads a line from the pipe `gate`, succeeds",
    "stays": "witness; for ten minutes",
    "stays, deaf to TERM": "as above, and asking politely does not end it",
    "ends on TERM, its child does not": "a process that it started is the one that is deaf",
    "answers TERM and stays": "as above, and writes the line `term` into the witness at each TERM",
    "leaves a child behind": "retry, with `so long`; the child holds its stderr open, and its pid"
    " is the line in the witness",
}


class Build(Protocol):
    """Makes a handler; `places` is how many jobs it must be able to run at once."""

    def __call__(
        self, behaviour: str, *, timeout: float = 60, kill_after: float = 60, places: int = 1
    ) -> Handler: ...


class Kind(NamedTuple):
    """A kind of handler, or one of several ways to run it.

    `opened` takes the test's folder, where the pipes are; inside the context there is whatever the
    handlers need (a server, say), and at its end every handler that was built is closed.
    `excuses` says of each behaviour that the kind does not show why it cannot be.
    """

    name: str
    shows: AbstractSet[str]
    opened: Callable[[Path], AbstractAsyncContextManager[Build]]
    excuses: Mapping[str, str]
