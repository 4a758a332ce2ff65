"""From the evidence to sentences: why a file is where it is, and what is missing. Reads nothing."""

from collections.abc import Callable, Iterator

from daemon.cli.answers import Explanation, seconds_since
from daemon.cli.evidence import Evidence, Scene, refused_by
from daemon.cli.text_form import shortened, span
from daemon.config_steps import Step
from daemon.core.model import Row
from daemon.core.texts import readable
from daemon.engine.standing import Survivor
from daemon.engine.waiting import named

# Nothing is amiss with these, and they wait for nobody but the daemon.
_WELL = frozenset({"ready", "processing", "done", "gone"})
# While it does not run these stay as they are, and nobody minds.
_AT_REST = frozenset({"done", "gone", "quarantined", "held"})
_AT_A_STEP = frozenset({"ready", "processing", "failed"})
_KINDS = {
    "directory": "It is a directory: only the files in it have a state.",
    "other": "It is a link, or something else that is no regular file: only those are taken.",
    "elsewhere": "It lies behind a symbolic link, and so in no watched tree.",
    "absent": "Nothing is there, and the database knows of nothing that was.",
}

Sentences = Iterator[str]


def explained(scene: Scene, evidence: Evidence, confirmation: str) -> Explanation:
    """Everything that is to be said. `confirmation` is the command that lets removals pass."""
    row = evidence.row
    amiss = [*_attendance(scene, evidence)]
    if row is None or row.state == "untracked":
        sentences, state = [*_unknown(evidence)], None
    else:
        sentences, state = [*_STATES[row.state](row, evidence)], row.state
        amiss = [*_disk(row, evidence, confirmation), *_step_is(row, scene, evidence), *amiss]
    waits = not (state in _WELL or evidence.is_over) or bool(amiss)
    return Explanation(evidence.key, state, waits, evidence.conditions, [*sentences, *amiss])


def of_no_watch(roots: dict[str, bytes], *, absolute: bool) -> Explanation:
    """A path that lies in no watched folder, or that none of them has."""
    folders = ", ".join(f"{name} ({readable(root)})" for name, root in roots.items())
    found = "It is in no watched folder." if absolute else "No watch has it, or ever had."
    sentences = [f"{found} There are: {folders}."]
    return Explanation(None, None, waits=True, conditions=[], sentences=sentences)


def _unknown(evidence: Evidence) -> Sentences:
    look, watch = evidence.look, evidence.watch
    if look.kind == "error":
        yield f"It cannot be looked at: {look.error}."
    elif look.kind in _KINDS:
        yield _KINDS[look.kind]
    elif watch is not None:
        scan = f"a scan, every {span(watch.reconcile)}, finds it at the latest"
        refused = refused_by(watch, evidence.key.path)
        yield refused or f"The daemon has not seen it yet: {scan}."
        for condition in evidence.conditions:
            yield condition.sentence
            if condition.inventory is not None and condition.inventory.members:
                yield f"Its members: {named(condition.inventory.members)}."


def _settling(row: Row, evidence: Evidence) -> Sentences:
    yield from (condition.sentence for condition in evidence.conditions)
    if evidence.conditions and all(c.satisfied is not False for c in evidence.conditions):
        yield f"Nothing is missing: it settles when it is looked at next, {_due(row, evidence)}."


def _ready(row: Row, evidence: Evidence) -> Sentences:
    step = _step(row, evidence)
    limits = f", which takes {', '.join(_limits(step))}" if step else ""
    yield from _removal(row, evidence)
    yield f"It waits for a place in step {row.step}{limits}, {_since(row, evidence)}."
    yield from _put_off(evidence)
    limit = evidence.watch.interruptions if evidence.watch else 0
    if row.interruptions and row.interruptions + 1 >= limit:
        died = f"The daemon died {_times(row.interruptions)} while a handler had it"
        yield f"{died}: it runs alone, as soon as nothing else runs."


def _put_off(evidence: Evidence) -> Sentences:
    """What it met the last time, unless the whole step is known to meet that."""
    last = evidence.last
    if last is None or last.cause != "unavailable" or evidence.standing.open_since is not None:
        return
    yield f"Its last try met what is no fault of the file: {shortened(last.error)}."
    yield "That spent no attempt, and it is tried again by itself."


def _limits(step: Step) -> Iterator[str]:
    yield f"{step.concurrency} at a time"
    if step.per_directory is not None:
        yield f"{step.per_directory} of one folder"
    if step.max_per_minute is not None:
        yield f"{step.max_per_minute} a minute"


def _removal(row: Row, evidence: Evidence) -> Sentences:
    """What is being undone."""
    if row.plan != "remove":
        return
    yield "It was done, and is off the disk: the steps for removed files undo what was done."
    if evidence.frozen is not None:
        yield f"Removals are frozen, and these steps wait: {evidence.frozen}."


def _processing(row: Row, evidence: Evidence) -> Sentences:
    yield from _removal(row, evidence)
    yield f"Attempt {row.attempt} of step {row.step} runs, {_since(row, evidence)}."


def _failed(row: Row, evidence: Evidence) -> Sentences:
    step = _step(row, evidence)
    of = f" of {step.attempts}" if step else ""
    yield from _removal(row, evidence)
    yield f"Step {row.step} failed, failure {row.failures}{of}: {_error(row)}."
    yield f"It is tried again {_due(row, evidence)}."


def _quarantined(row: Row, evidence: Evidence) -> Sentences:
    event = evidence.last.event if evidence.last else ""
    aside = evidence.watch.on_quarantine if evidence.watch else None
    yield from _removal(row, evidence)
    if evidence.last and evidence.last.guard == "looping":
        yield f"It was not handed over again: {_error(row)}"
    elif event == "reject":
        yield f"The handler of step {row.step} refused it for good: {_error(row)}."
    elif event == "interrupt":
        yield f"The daemon died {_times(row.interruptions)} while step {row.step} ran on it."
    else:
        yield f"Step {row.step} failed {_times(row.failures)}, the last time with: {_error(row)}."
    if aside is not None and row.seen is not None:
        yield f"It is to be taken to {aside.move!r}, and could not be yet{_hindered(evidence)}."
    elif row.plan == "process":
        yield "It waits for an operator: put a corrected file there, or `touch` it to begin anew."


def _hindered(evidence: Evidence) -> str:
    if evidence.hindrance is not None:
        return f": {evidence.hindrance}"
    return "; `daemon.degraded` on the log says why, where something is in the way"


def _done(row: Row, evidence: Evidence) -> Sentences:
    yield f"Everything that its watch does has been done with it, {_since(row, evidence)} now."


def _held(row: Row, evidence: Evidence) -> Sentences:
    yield f"It is held back, {_since(row, evidence)}."


def _gone(row: Row, evidence: Evidence) -> Sentences:
    yield f"It is off the disk, {_since(row, evidence)}."
    last = evidence.last
    if last is not None and last.target is not None:
        why = f"It was quarantined ({_error(row)})" if row.error else "All was done with it"
        yield f"{why}, and it was taken to {readable(last.target)}."
    elif last is not None and last.guard == "taken":
        yield "All was done with it, and then it was deleted, as its watch says."


_STATES: dict[str, Callable[[Row, Evidence], Sentences]] = {
    "settling": _settling,
    "ready": _ready,
    "processing": _processing,
    "failed": _failed,
    "quarantined": _quarantined,
    "done": _done,
    "held": _held,
    "gone": _gone,
}


def _disk(row: Row, evidence: Evidence, confirmation: str) -> Sentences:
    """Where the disk shows something else than the row."""
    look, state = evidence.look, row.state
    if look.kind == "error":
        yield f"It cannot be looked at: {look.error}."
        if evidence.frozen is not None:
            yield f"Removals are frozen: {evidence.frozen}."
    elif state == "gone" or row.plan == "remove":
        if look.kind == "file":
            yield "It is there again, and the daemon has not looked at it yet."
    elif look.kind not in {"file", "nowhere"}:
        yield from _missing(evidence, confirmation)
    elif evidence.changed and state in {"ready", "failed", "quarantined", "done"}:
        yield "It has changed since, and the daemon has not looked at it yet."


def _missing(evidence: Evidence, confirmation: str) -> Sentences:
    if evidence.frozen is None:
        yield "It is off the disk, and the daemon has not looked at it yet."
    else:
        yield f"It is off the disk, but removals are frozen: {evidence.frozen}."
        yield f"If it was meant to go: {confirmation}"


def _step_is(row: Row, scene: Scene, evidence: Evidence) -> Sentences:
    """What the daemon says of the step of a file that could be started, or may be still handled."""
    if evidence.watch and row.step and row.state in _AT_A_STEP and _step(row, evidence) is None:
        yield f"Step {row.step} is no longer configured: the next start begins anew with the file."
    if not scene.running and row.state == "processing":
        yield "How this attempt ends is not on record: the next start has the file tried again."
    if scene.running and row.state == "ready":
        yield from _silent(row, evidence)
        yield from _closed(row, evidence)
    elif scene.running and row.state == "processing":
        yield from _silent(row, evidence)
        yield from _outlived(row, evidence)


def _silent(row: Row, evidence: Evidence) -> Sentences:
    """Where a disk hangs."""
    if (since := evidence.standing.silent_since) is not None:
        silent = span(seconds_since(since, evidence.now))
        yield f"Step {row.step} has had no answer from the disk for {silent}: its files wait."
        yield "See to the file system where they are taken, or to the server behind it."


def _outlived(row: Row, evidence: Evidence) -> Sentences:
    """Where a handler of a former run may still have it."""
    having = [one for one in evidence.standing.survivors if row.id in one.files]
    for one in having:
        since = span(seconds_since(one.since, evidence.now))
        yield f"Pid {one.pid}, begun {since} ago, has outlived a daemon that was killed{_may(one)}."
    if not having:
        return
    pids = " ".join(f"-{one.pid}" for one in having)
    if all(one.action == "end" for one in having):
        yield "It was asked to end, and is killed if it does not: then the file is tried again."
    else:
        yield 'Its step has on_restart = "wait": when it has ended, the file is tried again.'
        yield f"Who will not wait ends it, and all that it has started: kill -- {pids}"


def _may(survivor: Survivor) -> str:
    """A batch, or a worker, may have any of these."""
    count = len(survivor.files)
    return ", with it" if count == 1 else f", and may have it or others of {count} files"


def _closed(row: Row, evidence: Evidence) -> Sentences:
    """Where it takes none just now."""
    standing = evidence.standing
    if standing.open_since is not None:
        since = span(seconds_since(standing.open_since, evidence.now))
        failures = f"{standing.failures} failures in a row that are no file's"
        yield f"Step {row.step} is open for {since}, after {failures}: {shortened(standing.error)}."
        probe = _in(standing.probe_at, evidence.now)
        yield f"Its files wait and spend no attempt; the next of them tries it {probe}."
    if standing.paused is not None:
        yield f"Step {row.step} starts nothing for a moment: {standing.paused}."


def _attendance(scene: Scene, evidence: Evidence) -> Sentences:
    """Whether anybody looks after it."""
    state = evidence.row.state if evidence.row else None
    if evidence.key.watch not in scene.place.roots:
        yield "Its watch is no longer configured: nobody looks after it."
    elif not (scene.running or state in _AT_REST or evidence.is_over):
        yield "The daemon does not run."
    if scene.refused:
        yield f"The configuration would be refused now: {scene.refused}"


def _step(row: Row, evidence: Evidence) -> Step | None:
    steps = evidence.watch.all_steps if evidence.watch else ()
    return next((step for step in steps if step.name == row.step), None)


def _error(row: Row) -> str:
    return shortened(row.error)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _since(row: Row, evidence: Evidence) -> str:
    return f"for {span(seconds_since(row.at, evidence.now))}"


def _due(row: Row, evidence: Evidence) -> str:
    return _in(row.due_at, evidence.now)


def _in(at: int | None, now: int) -> str:
    if at is None or at <= now:
        return "at any moment"
    return f"in {span(seconds_since(now, at))}"
