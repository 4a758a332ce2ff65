"""Is the compiled table the machine that was declared? Asks both, and lists where they differ.

And is what is decided of many files at once what each would have been told alone?

python-statemachine's own engine is the judge. Compared is not only where an event leads but which
guards were asked, in which order. Pure, and seeded: the same answer every time.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import NamedTuple, cast

from msgspec.structs import replace

from daemon.config_names import ON_DONE
from daemon.core.decide import decide, discover_alike
from daemon.core.facts import Facts
from daemon.core.lifecycle import EVENTS, STATES, TABLE, Edge, LifeCycle, choose
from daemon.core.model import Event, Fingerprint, Key, Row, State, Transition, Trigger

# Everything that a guard could name.
NAMES = tuple(name for name in dir(Facts) if not name.startswith("_"))
_KEY = Key("equivalence", b"file")
_CONTENTS = (None, Fingerprint(1, 1, 1, 1, 1), Fingerprint(2, 2, 2, 2, 2))


class Answer(NamedTuple):
    """Where an event leads, or the guard that refused it; and the guards asked on the way."""

    to: str
    asked: tuple[str, ...]


class Witness:
    """Stands before `Facts`, or before made-up outcomes, and notes what is asked of them."""

    def __init__(self) -> None:
        self.row = Row(0, _KEY)
        self.facts: object = SimpleNamespace()
        self.asked: list[str] = []

    def __dir__(self) -> list[str]:
        return [*NAMES]

    def __getattr__(self, name: str) -> object:
        if name not in NAMES:
            raise AttributeError(name)
        self.asked.append(name)
        return getattr(self.facts, name, False)

    def hear(self, ask: Callable[[], str]) -> Answer:
        """Let one of the two decide, and keep what it asked."""
        self.asked.clear()
        to = ask()
        return Answer(to, tuple(self.asked))


def differences(lives: int = 50, steps: int = 100, seed: int = 1) -> list[str]:
    """Every way found in which table and engine differ; empty when they are equal. 0.8 s."""
    return [*every_outcome(), *random_lives(lives, steps, seed), *discoveries(lives, seed)]


def every_outcome() -> Iterator[str]:
    """Ask about each state, event, and combination of outcomes of the guards that either asks."""
    witness = Witness()
    machine = LifeCycle(listeners=[witness])
    for state, event in product(STATES, EVENTS):
        for outcomes in _outcomes(machine, witness, state, event):
            ours, theirs = _ask_both(machine, witness, state, event, outcomes)
            if ours != theirs:
                yield _difference(state, event, outcomes, ours, theirs)


def random_lives(lives: int, steps: int, seed: int) -> Iterator[str]:
    """Lead files through random lives, on real facts; the engine keeps its own state all along."""
    rand = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(lives):
        yield from _life(rand, steps)


def discoveries(bundles: int, seed: int) -> Iterator[str]:
    """Discover new files together, and each alone, on real facts."""
    rand = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(bundles):
        facts = _some_facts(rand, Row(0, _KEY))
        evidence = replace(facts, loop=None, now=rand.randrange(2**50))
        files = [
            (
                Key("equivalence", rand.randbytes(4)),
                Fingerprint(*(rand.randrange(2**63) for _ in Fingerprint._fields)),
                rand.randrange(2**50),
                rand.randint(-2, 2),
                f"a-{n}",
            )
            for n in range(9)
        ]
        alone = [_discovered(evidence, *each) for each in files]
        together = [alone[0], *discover_alike(alone[0], files[1:])]
        for one, other in zip(together, alone, strict=True):
            if one != other:
                yield f"discovered together, {one}; alone, {other}"


def _discovered(
    evidence: Facts, key: Key, seen: Fingerprint, due_at: int, rank: int, attempt_id: str
) -> Transition:
    facts = replace(evidence, row=Row(0, key), seen=seen, settle_at=due_at, rank=rank)
    return cast(
        "Transition",
        decide(facts, "discover", Trigger(key, "look", "equivalence"), attempt_id, "node"),
    )


def _life(rand: random.Random, steps: int) -> Iterator[str]:
    witness = Witness()
    machine = LifeCycle(listeners=[witness])
    for _ in range(steps):
        event = _some_event(rand, witness.row.state)
        facts = witness.facts = _some_facts(rand, witness.row)
        ours = witness.hear(partial(_by_table, witness, event))
        theirs = witness.hear(partial(_by_engine, machine, witness, event))
        if ours != theirs or _after(facts, event).state != machine.current_state_value:
            yield _difference(witness.row.state, event, facts, ours, theirs)
            return
        witness.row = _after(facts, event)


def _ask_both(
    machine: LifeCycle, witness: Witness, state: State, event: Event, outcomes: Mapping[str, bool]
) -> tuple[Answer, Answer]:
    witness.row = Row(0, _KEY, state)
    witness.facts = SimpleNamespace(**outcomes)
    machine.current_state_value = state
    ours = witness.hear(partial(_by_table, witness, event))
    return ours, witness.hear(partial(_by_engine, machine, witness, event))


def _outcomes(
    machine: LifeCycle, witness: Witness, state: State, event: Event
) -> Iterator[dict[str, bool]]:
    # With every guard closed each of them is asked, all the way to the last edge.
    ours, theirs = _ask_both(machine, witness, state, event, {})
    guards = dict.fromkeys(ours.asked + theirs.asked)
    for values in product((False, True), repeat=len(guards)):
        yield dict(zip(guards, values, strict=True))


def _by_table(witness: Witness, event: Event) -> str:
    edge = choose(cast("Facts", witness), event)
    return edge.to if isinstance(edge, Edge) else f"refused by {edge}"


def _by_engine(machine: LifeCycle, witness: Witness, event: Event) -> str:
    try:
        machine.send(event)
    except LifeCycle.TransitionNotAllowed:
        return f"refused by {witness.asked[-1] if witness.asked else 'no_edge'}"
    return str(machine.current_state_value)


def _after(facts: Facts, event: Event) -> Row:
    decided = decide(facts, event, Trigger(_KEY, event, "equivalence"), "", "")
    return decided.after if isinstance(decided, Transition) else facts.row


def _some_event(rand: random.Random, state: State) -> Event:
    """Mostly one that the state knows, or lives would end in rows of refusals."""
    known = [event for at, event in TABLE if at == state]
    return rand.choice(known if known and rand.randrange(5) else EVENTS)


def _some_facts(rand: random.Random, row: Row) -> Facts:
    return Facts(
        row,
        seen=rand.choice(_CONTENTS),
        settled=rand.choice((True, False)),
        adopted=not rand.randrange(10),
        steps=rand.choice(((), ("one",), ("one", "two"), ("one", ON_DONE))),
        removal_steps=rand.choice(((), ("undo",), ("undo", "tell"))),
        attempts=rand.randint(1, 3),
        interruptions=rand.randint(1, 3),
        crashed=rand.choice((True, False)),
        loop=rand.choice((None, None, None, "it came back")),
        target=rand.choice((None, b"/away")),
    )


def _difference(state: str, event: str, facts: object, ours: Answer, theirs: Answer) -> str:
    return f"{event} in state {state}, {facts}: the table says {ours}, the engine {theirs}"
