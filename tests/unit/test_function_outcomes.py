"""What a function returned, or raised, as an outcome: and whose fault that is."""

import errno
import socket
from collections.abc import Callable

import pytest

from daemon.core.model import Key
from daemon.handlers import Job, Outcome, Reject, Retry, Unavailable
from daemon.handlers.function_outcomes import call

JOB = Job(7, Key("w", b"in/a.csv"), b"/srv/in/a.csv", "s", 2, "k")


def raising(error: BaseException) -> Callable[[Job], object]:
    def function(_job: Job) -> None:
        raise error

    return function


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Retry("no"), Outcome("retry", "no")),
        (Retry("no", after=3), Outcome("retry", "no", after=3.0)),
        (Retry(after=-3), Outcome("retry", "Retry", after=0.0)),
        (Reject("never"), Outcome("reject", "never")),
        (Unavailable("away", after=60), Outcome("unavailable", "away", after=60.0)),
        (KeyError("rows"), Outcome("retry", "KeyError: 'rows' (test_function_outcomes.py:")),
        (SystemExit(3), Outcome("retry", "SystemExit: 3 (")),
        (KeyboardInterrupt(), Outcome("retry", "KeyboardInterrupt (")),
        (ValueError("a\0\udc80"), Outcome("retry", "ValueError: a\\x00\\udc80 (")),
        (ConnectionResetError(), Outcome("retry", "ConnectionResetError (", suspect=True)),
        (TimeoutError(), Outcome("retry", "TimeoutError (", suspect=True)),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), Outcome("unavailable", "Connection")),
        (socket.gaierror(-2, "Name or service not known"), Outcome("unavailable", "gaierror: ")),
        (OSError(errno.EHOSTUNREACH, "No route"), Outcome("unavailable", "OSError: [Errno 113]")),
        (
            caused(RuntimeError("sync"), ConnectionRefusedError(errno.ECONNREFUSED, "no")),
            Outcome("unavailable", "RuntimeError: sync ("),
        ),
        (MemoryError(), Outcome("defer", "MemoryError (")),
        (OSError(errno.EMFILE, "Too many"), Outcome("defer", "OSError: [Errno 24]")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors(error: BaseException, outcome: Outcome) -> None:
    """What a function raises is an outcome, with its type and its place where it is no word."""
    got = call(raising(error), JOB)
    assert (got.verdict, got.after, got.suspect) == (
        outcome.verdict,
        outcome.after,
        outcome.suspect,
    )
    assert f"{got.error}".startswith(f"{outcome.error}")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (None, Outcome("success")),
        (0, Outcome("success", result="0")),
        ({"rows": [1, "ü"]}, Outcome("success", result='{"rows":[1,"ü"]}')),
        (object(), Outcome("retry", "returned object, which is no small JSON value: Encoding")),
        ("x" * 4095, Outcome("retry", "returned str, which is no small JSON value: a result of")),
        ("\udc80", Outcome("retry", "returned str, which is no small JSON value: 'utf-8'")),
    ],
    ids=["none", "zero", "table", "object", "long", "surrogate"],
)
def test_values(value: object, outcome: Outcome) -> None:
    """What a function returns is the result, as JSON of at most 4 KB."""
    got = call(lambda _job: value, JOB)
    assert (got.verdict, got.result) == (outcome.verdict, outcome.result)
    assert f"{got.error}".startswith(f"{outcome.error}")


def test_coroutine_of_a_function_that_is_not_async() -> None:
    """A function that only looks as if it were not async is told so; nothing stays unawaited."""

    async def load(_job: Job) -> None:
        pass

    got = call(lambda job: load(job), JOB)  # noqa: PLW0108 - a function around an async one
    assert (got.verdict, got.error) == (
        "retry",
        "returned something to await: let the function be async",
    )
