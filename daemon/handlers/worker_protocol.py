"""What goes to a worker and what comes back: a JSON object a line, as docs/handlers.md says."""

from base64 import b64encode
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from daemon.core.model import Plan
from daemon.core.texts import readable as readable_path
from daemon.core.texts import shown
from daemon.handlers import Job, Outcome, Verdict
from daemon.handlers.said import readable, result_text

# A longer line is no answer: whoever forgets the newline must not fill our memory.
LINE_BYTES = 65_536
_SHOWN = 200


class Request(Struct, frozen=True):
    """A file for the worker. Without a blank, and with its keys in this order."""

    id: int
    path: str
    relpath: str
    watch: str
    step: str
    attempt: int
    key: str
    version: int
    file_id: int
    plan: Plan
    size: int | None
    previous: Raw
    path_b64: str | UnsetType = UNSET
    relpath_b64: str | UnsetType = UNSET


class Ping(Struct, frozen=True):
    """To be answered by `{"pong": ...}` with the same number."""

    ping: int


class Answer(Struct, frozen=True):
    """An outcome for the request `id`, or a `pong`. Other keys are ignored."""

    id: int | None = None
    outcome: Literal["success", "retry", "reject", "unavailable"] | None = None
    error: str | None = None
    after: Annotated[float, Meta(ge=0)] | None = None
    result: Raw = Raw(b"null")
    pong: int | None = None


class NotUnderstoodError(Exception):
    """What a worker did that is not allowed by the protocol, as the rest of a sentence about it."""


class Lines:
    """What came of a line that has not ended yet."""

    def __init__(self) -> None:
        self.rest = b""

    def whole(self, data: bytes) -> bytes:
        """The lines that end in `data`. Raises `NotUnderstoodError` where one is too long."""
        lines, _, self.rest = (self.rest + data).rpartition(b"\n")
        longest = len(self.rest)
        if len(lines) > LINE_BYTES:
            longest = max(longest, *map(len, lines.split(b"\n")))
        if longest > LINE_BYTES:
            raise NotUnderstoodError(f"wrote a line of more than {LINE_BYTES} bytes")
        return lines


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Answer)
_NULL = Raw(b"null")


def request(number: int, job: Job) -> Request:
    """The job as a worker sees it; paths that are not UTF-8 readable, and exact in base 64."""
    path, relpath = readable_path(job.path), readable_path(job.file.path)
    return Request(
        number,
        path,
        relpath,
        job.file.watch,
        job.step,
        job.attempt,
        job.idempotency_key,
        job.version,
        job.file_id,
        job.plan,
        job.seen.size if job.seen else None,
        Raw(job.previous_json.encode()) if job.previous_json else _NULL,
        UNSET if path.encode() == job.path else b64encode(job.path).decode(),
        UNSET if relpath.encode() == job.file.path else b64encode(job.file.path).decode(),
    )


def lines_of(messages: list[Struct]) -> bytes:
    """All of them in one piece, for one write."""
    return _ENCODER.encode_lines(messages)


def read_answers(lines: bytes) -> tuple[list[Answer], NotUnderstoodError | None]:
    """The answers in whole lines: all of them, or those before the first that is none."""
    try:
        return _DECODER.decode_lines(lines), None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _read_one_by_one(lines)


def _read_one_by_one(lines: bytes) -> tuple[list[Answer], NotUnderstoodError | None]:
    answers: list[Answer] = []
    for line in filter(None, map(bytes.strip, lines.split(b"\n"))):
        try:
            answers.append(_DECODER.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            said = shown(line[:_SHOWN]) + ("..." if len(line) > _SHOWN else "")
            return answers, NotUnderstoodError(f"answered what is no answer ({error}): {said}")
    return answers, None


def outcome_of(answer: Answer, duration_ms: float) -> Outcome:
    """What an answer to a request means for its file."""
    verdict: Verdict = answer.outcome or "retry"
    if verdict != "success":
        error = readable(answer.error or "") or "the worker gave no reason"
        return Outcome(verdict, error, duration_ms, after=answer.after)
    try:
        return Outcome(verdict, None, duration_ms, result=result_text(answer.result))
    except ValueError as error:
        return Outcome("retry", f"the worker succeeded with {error}", duration_ms)
