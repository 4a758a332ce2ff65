"""How a step stands just now: what its lane knows beside the files, and `status` tells."""

import msgspec
from msgspec import Struct


class Survivor(Struct, frozen=True):
    """A handler that outlived the daemon that had started it, which was killed.

    It began at `since`; `files` are the numbers of those that it may have. `action`: what its step
    wants done with it, "end" or "wait".
    """

    pid: int
    since: int
    files: tuple[int, ...]
    action: str


class Standing(Struct, omit_defaults=True, frozen=True):
    """Times in microseconds since the epoch.

    `open_since`: what the step needs could not be reached so often that its files are left alone:
    `failures` in a row by now, the last of them `error`. A file tries it again at `probe_at`.
    `paused`: why nothing is started for a moment. `silent_since`: where files are taken, or come
    from, has not answered since then. `survivors`: who of a former run is still there.
    """

    open_since: int | None = None
    failures: int = 0
    error: str | None = None
    probe_at: int | None = None
    paused: str | None = None
    silent_since: int | None = None
    survivors: tuple[Survivor, ...] = ()


Standings = dict[str, Standing]
_decoder = msgspec.json.Decoder(Standings)


def told(standings: Standings) -> str:
    """As JSON, for the database."""
    return msgspec.json.encode(standings).decode()


def heard(text: str) -> Standings:
    """From that JSON, by the names of steps.

    Raises:
        msgspec.MsgspecError: another version wrote it.
    """
    return _decoder.decode(text)
