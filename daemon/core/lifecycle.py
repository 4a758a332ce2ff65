"""The life cycle of a file, declared once: nine states, fifteen events, the guards of each edge.

`LifeCycle` is the declaration. `TABLE` is compiled from it at import and decides the same in a
microsecond (docs/state-machine.md has the comparison). This is the only importer of `statemachine`.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple, cast

from statemachine import State as Node
from statemachine import StateMachine

from daemon.core.facts import Facts
from daemon.core.model import Event, State


class LifeCycle(StateMachine):
    """Edges of one event are tried in the order in which they stand; the first open one is taken.

    Guards are names of `Facts`: hand one over as a listener to run this machine itself.
    """

    untracked = Node(initial=True, value="untracked")
    settling = Node(value="settling")
    ready = Node(value="ready")
    processing = Node(value="processing")
    failed = Node(value="failed")
    quarantined = Node(value="quarantined")
    done = Node(value="done")
    held = Node(value="held")
    gone = Node(value="gone")

    discover = (
        done.from_(untracked, gone, cond="adopted")
        | ready.from_(untracked, gone, cond="left_behind")
        | done.from_(untracked, gone, cond="as_done")
        | done.from_(untracked, gone, cond="tracked_only")
        | quarantined.from_(untracked, gone, cond="looping")
        | ready.from_(untracked, gone, cond="settled")
        | settling.from_(untracked, gone)
    )
    change = settling.from_(ready, failed, quarantined, done, cond="changed")
    settle = (
        settling.to(ready, cond="left_behind")
        | settling.to(done, cond="as_done")
        | settling.to(done, cond="tracked_only")
        | settling.to(quarantined, cond="looping")
        | settling.to(ready, cond="settled")
    )
    start = ready.to(processing, cond="fresh")
    succeed = (
        processing.to(settling, cond="changed")
        | processing.to(ready, cond="step_follows")
        | processing.to(gone, cond="removal")
        | processing.to(gone, cond="taken")
        | processing.to(done)
    )
    fail = processing.to(failed, cond="attempts_left") | processing.to(quarantined)
    reject = processing.to(quarantined)
    interrupt = processing.to(ready, cond="interruptions_left") | processing.to(quarantined)
    retry = ready.from_(failed, quarantined)
    vanish = (
        quarantined.to(gone, cond="put_aside")
        | ready.from_(settling, ready, failed, quarantined, done, cond="removal_planned")
        | gone.from_(settling, ready, failed, quarantined, done, held, cond="absent")
    )
    move = (
        settling.to(settling, cond="fresh")
        | ready.to(ready, cond="fresh")
        | failed.to(failed, cond="fresh")
        | quarantined.to(quarantined, cond="fresh")
        | done.to(done, cond="fresh")
        | held.to(held, cond="fresh")
        | gone.to(gone, cond="fresh")  # whose path another file has taken
    )
    hold = held.from_(settling, ready, failed, quarantined, done)
    release = held.to(ready, cond="removal_pending") | held.to(settling)
    skip = gone.from_(ready, failed, quarantined, held, cond="removal") | done.from_(
        settling, ready, failed, quarantined, held
    )
    reset = untracked.from_(done, failed, quarantined, held, gone)


class Edge(NamedTuple):
    """One way out of a state: the guard's name (None: always open) and where it leads."""

    guard: str | None
    is_open: Callable[[Facts], bool]
    to: State


def _always(_: Facts) -> bool:
    return True


def _compile() -> dict[tuple[State, Event], tuple[Edge, ...]]:
    """Read the declaration: for each state and event, its edges in their order.

    Raises:
        TypeError: the class declares something that the table cannot say.
    """
    table: dict[tuple[State, Event], tuple[Edge, ...]] = {}
    for state in LifeCycle.states:
        for transition in state.transitions:
            guards = [str(spec) for spec in transition.cond]  # `unless` reads as `!name`
            if len(guards) > 1 or not all(hasattr(Facts, name) for name in guards):
                raise TypeError(f"{transition!r}: one guard an edge, and Facts must have it")
            name = guards[0] if guards else None
            edge = Edge(name, attrgetter(name) if name else _always, transition.target.value)
            key = (cast("State", state.value), cast("Event", transition.event))
            table[key] = (*table.get(key, ()), edge)
    return table


TABLE = _compile()
STATES: tuple[State, ...] = tuple(state.value for state in LifeCycle.states)
EVENTS: tuple[Event, ...] = tuple(dict.fromkeys(event for _, event in TABLE))
# What the ledger may ever hold: selftest and the crash tests look for anything else.
LEGAL: frozenset[tuple[str, str, str]] = frozenset(
    (state, event, edge.to) for (state, event), edges in TABLE.items() for edge in edges
)


def choose(facts: Facts, event: Event) -> Edge | str:
    """The first open edge for this event, else the name of the last guard that said no.

    Without any edge the answer is `no_edge`.
    """
    refused = "no_edge"
    for edge in TABLE.get((facts.row.state, event), ()):
        if edge.is_open(facts):
            return edge
        refused = str(edge.guard)
    return refused
