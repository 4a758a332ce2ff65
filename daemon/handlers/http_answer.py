"""What an answer means, or that there was none: from HTTP, and from errors, to an `Outcome`."""

import errno
import os
import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp

from daemon.errors import SHORTAGE
from daemon.handlers import Outcome
from daemon.handlers.said import result_text, said

# So much of an answer is read, and so much of the end of that is shown.
READ_BYTES = 65_536
# The longest that a server may have us wait: it may have meant milliseconds, or have a wrong clock.
LONGEST_WAIT = 3_600.0
_SECONDS = re.compile(r" *[0-9]+ *")
_SUCCESS = range(200, 300)
_REDIRECT = range(300, 400)
_FAULT = range(500, 600)
# The limit of a rate is reached, or the server has no time for anybody.
_UNAVAILABLE = frozenset({429, 503})
_IMPATIENT = frozenset({408, 425})
# The secret or the URL may be the reason as well, and they are the same for every file.
_ASTRAY = frozenset({401, 403, 404, 405, 407, 410})


class Answer(NamedTuple):
    """An answer as far as it was read, without the secret that it may have repeated.

    `cut`: it had not ended there.
    """

    status: int
    content_type: str
    retry_after: str | None
    body: bytes
    cut: bool = False


def judge(answer: Answer, shortest: float) -> Outcome:
    """What the status means. A wait that the server asks for is of `shortest` seconds at least."""
    status = answer.status
    if status in _SUCCESS:
        return Outcome("success", result=_result(answer))
    error, after = _error(answer), _seconds(answer.retry_after, shortest)
    if status in _UNAVAILABLE or status in _REDIRECT:
        return Outcome("unavailable", error, after=after)
    if status in _IMPATIENT or status in _FAULT:
        return Outcome("retry", error, after=after, suspect=True)
    return Outcome("reject", error, suspect=status in _ASTRAY)


def judge_silence(error: Exception, where: str, connect: float) -> Outcome:
    """What it means that there was no answer, or half of one, from `where`.

    No text of an exception is repeated that could hold a header or a path of the URL.
    """
    if _is_shortage(error):
        return Outcome("defer", f"cannot connect: {_words(error)}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Outcome("unavailable", f"no connection to {where} in {connect:g}s")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Outcome("unavailable", f"the host of {where} is not found: {_words(error)}")
    if tls := _tls(error):
        return Outcome("unavailable", f"no safe connection to {where}: {tls}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Outcome("unavailable", f"cannot connect to {where}: {_words(error)}")
    return Outcome("retry", f"{where} {_how_it_broke(error)}", suspect=True)


def _is_shortage(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in SHORTAGE


def _words(error: Exception) -> str:
    """What the system says."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if not isinstance(cause, OSError):
        return type(cause).__name__
    known = cause.errno if cause.errno in errno.errorcode else None
    return os.strerror(known) if known else cause.strerror or str(cause)


def _tls(error: Exception) -> str | None:
    """What is wrong with the certificates, if that is it: a client's may be refused later on."""
    cause: BaseException | None = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return (cause.reason or cause.strerror or "TLS").lower().replace("_", " ")


def _how_it_broke(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return "answered something that is not HTTP"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "broke off its answer"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection without an answer"
    if isinstance(error, OSError) and error.errno:
        return f"broke off: {os.strerror(error.errno)}"
    return f"gave no answer: {type(error).__name__}"


def _error(answer: Answer) -> str:
    status = f"HTTP {answer.status}"
    if answer.status in _REDIRECT:
        status += ", and redirects are not followed: `http` has to name the final address"
    return said(status, answer.body)


def _result(answer: Answer) -> str | None:
    """The JSON of an answer, for the next step; None where there is none, or too much of it."""
    if not answer.body or answer.cut or not _is_json(answer.content_type):
        return None
    with suppress(ValueError):
        return result_text(answer.body)
    return None


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _seconds(written: str | None, shortest: float) -> float | None:
    """`Retry-After` in both its forms, within bounds."""
    if written is None:
        return None
    wait = float(written) if _SECONDS.fullmatch(written) else _until(written)
    return None if wait is None else max(shortest, min(wait, LONGEST_WAIT))


def _until(date: str) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return (then - datetime.now(UTC)).total_seconds()
