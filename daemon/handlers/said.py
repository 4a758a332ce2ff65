"""What a handler had to say: readable text of at most 4 KB, a small result for the next step."""

import re
import signal
from contextlib import suppress

import msgspec

from daemon.handlers import RESULT_BYTES

# Of what a program says, the last bytes.
KEPT = 4_096


def said(what: str, words: bytes) -> str:
    """`what`, with somebody's last words behind it where there are any."""
    tail = readable_tail(words)
    return f"{what}: {tail}" if tail else what


def readable_tail(raw: bytes) -> str:
    """Readable, valid UTF-8 without NUL (PostgreSQL refuses it), of at most 4 KB."""
    if len(raw) >= KEPT:  # cut short, perhaps inside a character
        raw = re.sub(rb"\A[\x80-\xbf]{1,3}", b"", raw[-KEPT:])
    text = raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00").strip()
    return text.encode()[-KEPT:].decode("utf-8", "ignore")


def readable(text: str) -> str:
    """The same for what is text already, a lone surrogate or a NUL perhaps among it."""
    return readable_tail(text.encode("utf-8", "backslashreplace"))


def how_it_ended(status: int) -> str:
    """An exit status, or minus the number of a signal."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):  # a real-time signal has no name
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def result_text(raw: bytes) -> str | None:
    """JSON as the row keeps it, in one line; None for null.

    Raises:
        ValueError: it is not JSON, or more than `RESULT_BYTES` of it.
    """
    try:
        compact = msgspec.json.format(raw, indent=-1)
        msgspec.json.decode(compact)  # what was only formatted may hold what is no text
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if len(compact) > RESULT_BYTES:
        raise ValueError(f"a result of {len(compact)} bytes, where {RESULT_BYTES} are allowed")
    return None if compact == b"null" else compact.decode()
