"""How paths and times read, in a line of the log and on a terminal."""

import time
from base64 import b64encode
from functools import lru_cache

# A name of UTF-8 keeps its characters; a byte that is not part of any comes back as one of these.
_LONE = range(0xDC80, 0xDD00)
_NAMED = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=8)
def timestamp(at: int) -> str:
    """RFC 3339, UTC, microseconds. Of what is decided together many have the same."""
    seconds, micros = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


def readable(path: bytes) -> str:
    r"""The path as text; what is not UTF-8 in it shows as `\xff`."""
    return path.decode("utf-8", "backslashreplace")


def path_fields(name: str, path: bytes) -> dict[str, str]:
    """A path readable, and exact in base 64 beside it where it is not UTF-8."""
    text = readable(path)
    if text.encode() == path:
        return {name: text}
    return {name: text, f"{name}_b64": b64encode(path).decode()}


def shown(text: str | bytes) -> str:
    r"""One line that does nothing to a terminal, whatever is in it.

    Control characters, those that reorder a line, and bytes that are not UTF-8 become `\n`,
    `\x1b`, `\u202e`; a backslash is doubled, so that two names never look alike.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(char if char.isprintable() and char != "\\" else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if code in _LONE:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:  # noqa: PLR2004 - ASCII, where Python's own escapes are bytes as well
        return _NAMED.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the BMP
