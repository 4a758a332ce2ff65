"""What a function returned, or raised, as the outcome for its file."""

import errno
import socket
import traceback
from collections.abc import Awaitable, Iterator
from pathlib import Path

import msgspec

from daemon.handlers import Job, Outcome, Reject, Retry, Unavailable
from daemon.handlers.function_loading import Function
from daemon.handlers.launching import TOO_FEW
from daemon.handlers.said import readable, result_text

# Nobody is there who would take the file.
_AWAY = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
)
# So many causes of an error are asked for their own.
_CAUSES = 8


def call(function: Function, job: Job) -> Outcome:
    """Call a function that is not async; whatever it raises is an outcome."""
    try:
        return outcome_of_value(function(job))
    except BaseException as error:  # noqa: BLE001 - even SystemExit is about this file only
        return outcome_of_error(error)


def outcome_of_value(value: object) -> Outcome:
    """It returned: None, or what the next step is to know, as JSON."""
    if value is None:
        return Outcome("success")
    if isinstance(value, Awaitable):
        if close := getattr(value, "close", None):
            close()
        return Outcome("retry", "returned something to await: let the function be async")
    try:
        return Outcome("success", result=result_text(msgspec.json.encode(value)))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        kind = type(value).__name__
        return Outcome("retry", readable(f"returned {kind}, which is no small JSON value: {error}"))


def outcome_of_error(error: BaseException) -> Outcome:
    """It raised: what it meant to say, or an accident; and whose fault that is."""
    if isinstance(error, Reject):
        return Outcome("reject", _reason(error))
    if isinstance(error, Retry):
        return Outcome("retry", _reason(error), after=_not_negative(error.after))
    if isinstance(error, Unavailable):
        return Outcome("unavailable", _reason(error), after=_not_negative(error.after))
    said = readable(_said(error))
    for cause in _with_causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if isinstance(cause, MemoryError) or number in TOO_FEW:
            return Outcome("defer", said)
        if isinstance(cause, socket.gaierror) or number in _AWAY:
            return Outcome("unavailable", said)
    # A connection that breaks, or an answer that does not come, may be the other end's fault.
    return Outcome("retry", said, suspect=isinstance(error, ConnectionError | TimeoutError))


def _reason(error: BaseException) -> str:
    return readable(str(error)) or type(error).__name__


def _not_negative(after: float | None) -> float | None:
    return None if after is None else max(float(after), 0.0)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _said(error: BaseException) -> str:
    """Type, message, and the line that raised it."""
    message = str(error)
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{said} ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else said
