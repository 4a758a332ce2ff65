"""The steps of a watch: what they have in common, and what each kind of handler takes.

A step's kind is the key that says what runs: `command`, `worker`, `http` or `function`. Every kind
has its own model, so that a key of another kind is refused like any other that is not known.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct

from daemon import config_http as posting
from daemon import config_program as program
from daemon import config_values as values
from daemon.config_names import RESERVED
from daemon.config_report import Finding, WrongValueError, wrong
from daemon.config_tables import Example, listing, table

Name = Annotated[str, values.name]
Duration = Annotated[float, values.duration]
Span = Annotated[float, values.span]
Count = Annotated[int, values.whole(1)]
Share = Annotated[float, values.number(0, 1)]
# Files that a step may have in memory at once.
IN_FLIGHT = 16_384


def _step_name(value: object) -> str:
    name = values.name(value)
    if name in RESERVED:
        found = f"found {name!r}, which is what the key {name} of a watch goes by"
        raise wrong(value, "give the step another name", found)
    return name


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

    name: Annotated[str, _step_name, Example('name = "load"')]
    timeout: Span = 300.0
    kill_after: Duration = 5.0
    concurrency: Annotated[int, values.whole(1, 1024)] = 1
    attempts: Count = 5
    backoff: Backoff = Backoff()
    breaker: Breaker = Breaker()
    per_directory: Annotated[int | None, values.whole(1)] = None
    max_per_minute: Annotated[int | None, values.whole(1, 1_000_000)] = None
    on_change: Literal["finish", "cancel"] = "finish"

    @property
    def places(self) -> int:
        """How many files its handler can have at a time."""
        return self.concurrency


class ProgramStep(Step, frozen=True, kw_only=True):
    """A step that starts programs of its own: how they run, whatever they are told."""

    cwd: Annotated[Path | None, values.folder] = None
    env: Annotated[dict[str, str], program.environment] = {}
    user: Annotated[str | None, program.user] = None
    nice: Annotated[int, values.whole(-20, 19)] = 0
    limits: program.Limits = program.Limits()
    on_restart: Literal["end", "wait"] = "end"


class CommandStep(ProgramStep, frozen=True, kw_only=True):
    """A step that runs a program once for each file, or for each batch of them."""

    command: Annotated[
        tuple[str, ...], program.command, Example('command = ["/usr/local/bin/load", "{path}"]')
    ]
    batch: Annotated[int, values.whole(1, 1024)] = 1
    stdin: Literal["none", "file", "paths0", "json"] = "none"
    output: Annotated[str, program.output] = "log"
    result: Literal["none", "stdout"] = "none"
    unavailable: Annotated[tuple[int, ...], program.statuses] = ()

    @property
    def places(self) -> int:
        """A batch is a place for as many files as it holds."""
        return self.concurrency * self.batch

    def __post_init__(self) -> None:
        """Refuse keys that do nothing, or do harm, beside each other."""
        if self.batch > 1 and (findings := list(_wrong_in_batch(self))):
            raise WrongValueError(findings)


def _wrong_in_batch(step: CommandStep) -> Iterator[Finding]:
    """What is about one file has no meaning where there are many."""
    if step.on_change == "cancel":
        found = 'found "cancel", which would end the others of its batch as well'
        yield Finding(("on_change",), found, 'write on_change = "finish", or batch = 1')
    if step.places > IN_FLIGHT:
        found = f"concurrency times batch is {step.places}"
        yield Finding(("batch",), found, f"let it be at most {IN_FLIGHT}")
    for at, written in (
        *((("command", n), a) for n, a in enumerate(step.command)),
        (("output",), step.output),
    ):
        for name in sorted(program.placeholders(written) & program.OF_ONE_FILE):
            found = f"found '{{{name}}}' beside batch = {step.batch}"
            remedy = (
                f"write {program.PATHS!r} as an argument of its own"
                if at[0] == "command"
                else "leave it away"
            )
            yield Finding(at, found, f"{remedy}: a batch is of many files")
    if step.stdin == "file":
        yield Finding(("stdin",), "found 'file' beside a batch", "allowed: 'paths0' or 'json'")
    elif step.stdin == "none" and program.PATHS not in step.command:
        remedy = f"add {program.PATHS!r} to it, or set stdin to 'paths0' or 'json'"
        yield Finding(("command",), "found no way by which it hears of the batch", remedy)
    if step.result != "none":
        remedy = "leave it away: what one run says of many files belongs to none of them"
        yield Finding(("result",), "found it beside a batch", remedy)


class HttpStep(Step, frozen=True, kw_only=True):
    """A step that posts each file, or an event about it, to a URL."""

    http: Annotated[str, posting.url, Example('http = "https://example.com/files"')]
    body: Literal["event", "file"] = "event"
    headers: Annotated[posting.Headers, posting.headers] = ()
    connect: Span = 10.0
    auth: Annotated[str | None, values.choice(("bearer", "hmac-sha256"))] = None
    secret: Annotated[posting.Secret | None, posting.secret] = None
    signature_header: Annotated[str, posting.header] = "X-Treewarden-Signature"
    ca: Annotated[Path | None, values.folder] = None
    cert: Annotated[Path | None, values.folder] = None
    key: Annotated[Path | None, values.folder] = None

    def __post_init__(self) -> None:
        """Refuse keys that do nothing, or do harm, beside each other."""
        if findings := list(_mismatched(self)):
            raise WrongValueError(findings)


def _mismatched(step: HttpStep) -> Iterator[Finding]:
    if step.secret and not step.auth:
        remedy = 'add auth = "bearer" or auth = "hmac-sha256"'
        yield Finding(("secret",), "found a secret without a use", remedy)
    if step.auth and not step.secret:
        yield Finding(("auth",), "found no secret for it", 'add secret = { file = "/path" }')
    if step.auth == "bearer" and posting.is_exposed(step.http):
        found = "a token sent over http can be read by others"
        yield Finding(("auth",), found, 'use https, or auth = "hmac-sha256"')
    if (step.cert is None) != (step.key is None):
        at, other = ("cert", "key") if step.cert else ("key", "cert")
        yield Finding((at,), f"found {at} without {other}", f"add {other}, or leave {at} away")
    given = [name for name in ("ca", "cert", "key") if getattr(step, name)]
    if given and step.http.startswith("http:"):
        yield Finding((given[0],), "found it beside a URL of the kind http", "use https")
    taken = {step.signature_header.lower()} if step.auth == "hmac-sha256" else set()
    taken |= {"content-type"} if step.body == "event" else set()
    for name, _ in step.headers:
        if name.lower() in taken:
            yield Finding(("headers", name), "found a header that is sent anyway", "leave it away")


class WorkerStep(ProgramStep, frozen=True, kw_only=True):
    """A step that asks programs that stay about one file after the other."""

    worker: Annotated[
        tuple[str, ...], program.worker, Example('worker = ["/usr/local/bin/index-worker"]')
    ]
    processes: Annotated[int, values.whole(1, 256)] = 1
    in_flight: Annotated[int, values.whole(1, 1024)] = 1
    ping: Duration = 30.0
    max_requests: Annotated[int, values.whole(0)] = 0

    def __post_init__(self) -> None:
        """Refuse what another key says here, and more than there is room for."""
        if self.concurrency != 1:
            remedy = "leave it away: files at a time are processes times in_flight"
            raise WrongValueError([Finding(("concurrency",), f"found {self.concurrency}", remedy)])
        if self.places > IN_FLIGHT:
            found = f"processes times in_flight is {self.places}"
            raise WrongValueError(
                [Finding(("in_flight",), found, f"let it be at most {IN_FLIGHT}")]
            )

    @property
    def places(self) -> int:
        """Each worker has as many files as it may have requests in flight."""
        return self.processes * self.in_flight


class FunctionStep(Step, frozen=True, kw_only=True):
    """A step that calls a Python function: in the loop if it is async, else as `pool` says."""

    function: Annotated[str, values.reference, Example('function = "orders:load"')]
    path: Annotated[tuple[Path, ...], listing(values.folder)] = ()
    pool: Literal["thread", "process"] = "thread"


# By the key that only a step of this kind has, and must have.
KINDS: dict[str, type[Step]] = {
    "command": CommandStep,
    "worker": WorkerStep,
    "http": HttpStep,
    "function": FunctionStep,
}


def read_step(value: object) -> Step:
    """A step of the kind that its keys say; of the first where they say none."""
    found = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    if len(found) > 1:
        remedy = "one step is of one kind: make two of it, or leave all but one away"
        raise WrongValueError([Finding((found[1],), f"found beside {found[0]!r}", remedy)])
    return table(KINDS[found[0] if found else next(iter(KINDS))])(value)
