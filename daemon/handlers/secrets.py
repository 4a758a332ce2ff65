"""Reads what nobody else may know, and keeps it out of everything that is written.

A file that others could read, or put something else into, is refused: its secret may be one no
longer, or be theirs.
"""

import errno
import hmac
import os
import re
import stat
from pathlib import Path

from daemon.config_http import Secret
from daemon.errors import ConfigError, Problem

LONGEST = 65_536
# Shorter ones are guessed, and could not be hidden without hiding half of what a server says.
SHORTEST = 8
CREDENTIALS = "CREDENTIALS_DIRECTORY"
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_HIDDEN = b"[secret]"


class Key:
    """A secret in memory. It shows itself to nobody who does not ask for it by name."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    @property
    def bearer(self) -> str:
        """The value of an `Authorization` header."""
        return f"Bearer {self._raw.decode('ascii')}"

    def mac(self, begin: bytes) -> hmac.HMAC:
        """An HMAC-SHA256 that has been fed with `begin`."""
        return hmac.new(self._raw, begin, "sha256")

    def hide(self, said: bytes, *, cut: bool) -> bytes:
        """What somebody said who knows the secret, without it; `cut`: there was more to come.

        A server that refuses a token likes to repeat it.
        """
        escaped = self._raw.replace(b"/", b"\\/")
        if cut:  # the end may be the beginning of it
            said = said[: -len(escaped)]
        return said.replace(self._raw, _HIDDEN).replace(escaped, _HIDDEN)


def place_of(secret: Secret) -> Path:
    """The file that holds the secret. Raises `ConfigError` where no credentials are given to us."""
    if secret.file:
        return secret.file
    folder = os.environ.get(CREDENTIALS)
    if not folder:
        found = f"there is no credential {secret.credential!r}: ${CREDENTIALS} is not set"
        remedy = f"run it by systemd, with LoadCredential={secret.credential}:/path in the unit"
        raise ConfigError([Problem("the environment", None, "", found, remedy)])
    return Path(folder, secret.credential or "")


def read_key(secret: Secret, *, token: bool) -> Key:
    """The secret, without the end of its line; a `token` has to fit into a header.

    Raises:
        ConfigError: it is not there, not safe there, or no secret.
    """
    path = place_of(secret)
    raw = read_private(path).strip(b"\r\n")
    if len(raw) < SHORTEST:
        raise _refused(path, f"found {len(raw)} bytes", f"a secret has at least {SHORTEST}")
    if token and not _TOKEN.fullmatch(raw):
        remedy = "write the token alone: letters, digits and -._~+/, perhaps = at its end"
        raise _refused(path, "found what is no bearer token", remedy)
    return Key(raw)


def read_private(path: Path) -> bytes:
    """The bytes of a file that is ours or root's and that others can neither read nor write.

    Raises:
        ConfigError: it is not there, or not so, or too long.
    """
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        _examine(path, os.fstat(fd))
        raw = os.read(fd, LONGEST + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)
    if len(raw) > LONGEST:
        raise _refused(path, f"found more than {LONGEST} bytes", "name the right file")
    return raw


def _examine(path: Path, st: os.stat_result) -> None:
    if not stat.S_ISREG(st.st_mode):
        raise _refused(path, "found no regular file", "name a file")
    if st.st_uid not in {0, os.geteuid()}:
        found = f"found the file of user {st.st_uid}, who could put another secret into it"
        raise _refused(path, found, f"let root or the daemon's user own it: chown {os.geteuid()}")
    if st.st_mode & _OTHERS:
        found = f"found mode {stat.S_IMODE(st.st_mode):04o}: others may read or write it"
        raise _refused(path, found, "chmod 0600, or 0640 for the daemon's group")


def _unreadable(path: Path, error: OSError) -> ConfigError:
    found = f"cannot be read: {os.strerror(error.errno or errno.EIO)}"
    return _refused(path, found, "let the daemon's user read it, or name another")


def _refused(path: Path, found: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(str(path), None, "", found, remedy)])
