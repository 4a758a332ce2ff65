"""What a program is told of its files: arguments, variables, and lines on its standard input."""

import os
import re
from collections.abc import Sequence

import msgspec

from daemon.config_program import PATHS
from daemon.core.texts import path_fields
from daemon.handlers import Job

_FIELDS = ("path", "relpath", "name", "watch", "step")
_TOKEN = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}%]|\0")


class Arguments:
    """The arguments of a command, made for the files of a run.

    `{path}`, `{relpath}`, `{name}`, `{watch}` and `{step}` are replaced inside an argument, which
    is never split; `{{` and `}}` are braces. An argument that is `{paths}` becomes one for each
    file. Any other brace raises `ValueError`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        if not command:
            raise ValueError("a command needs at least the name of a program")
        paths = command.index(PATHS) if PATHS in command else None
        self._before = tuple(template(part) for part in command[:paths])
        self._after = () if paths is None else tuple(template(a) for a in command[paths + 1 :])
        self._has_paths = paths is not None
        self.program_varies = b"%(" in self._before[0]

    def of(self, jobs: Sequence[Job]) -> list[bytes]:
        """The program and its arguments. Of several files the first one's fields are taken."""
        fields = fields_of(jobs[0])
        paths = [job.path for job in jobs] if self._has_paths else []
        return [
            *(before % fields for before in self._before),
            *paths,
            *(after % fields for after in self._after),
        ]

    def size_of(self, job: Job) -> int:
        """How many bytes of the kernel's room for arguments a file of a batch takes."""
        return len(job.path) + 9 if self._has_paths else 0


def template(text: str) -> bytes:
    """Compile a text to a bytes format: `--in={path}` becomes `--in=%(path)b`."""

    def piece(token: re.Match[str]) -> str:
        if token[1] in _FIELDS:
            return f"%({token[1]})b"
        if token[0] in {"{{", "}}", "%"}:
            return "%%" if token[0] == "%" else token[0][0]
        known = ", ".join(f"{{{field}}}" for field in _FIELDS)
        raise ValueError(f"{text!r}: {token[0]!r} is none of {known}, {{{{, }}}}")

    return os.fsencode(_TOKEN.sub(piece, text))


def fields_of(job: Job) -> dict[bytes, bytes]:
    """What may stand in braces."""
    return {
        b"path": job.path,
        b"relpath": job.file.path,
        b"name": job.file.name,
        b"watch": os.fsencode(job.file.watch),
        b"step": os.fsencode(job.step),
    }


def variables_of(jobs: Sequence[Job], *, counted: bool) -> dict[bytes, bytes]:
    """The environment that tells of the files; of several it tells but their number."""
    job = jobs[0]
    told = {
        b"TREEWARDEN_WATCH": os.fsencode(job.file.watch),
        b"TREEWARDEN_STEP": os.fsencode(job.step),
        b"TREEWARDEN_EVENT": b"removed" if job.plan == "remove" else b"settled",
    }
    if counted:
        told[b"TREEWARDEN_COUNT"] = b"%d" % len(jobs)
    if len(jobs) > 1:
        return told
    told[b"TREEWARDEN_PATH"] = job.path
    told[b"TREEWARDEN_RELPATH"] = job.file.path
    told[b"TREEWARDEN_ATTEMPT"] = b"%d" % job.attempt
    told[b"TREEWARDEN_FILE_ID"] = b"%d" % job.file_id
    told[b"TREEWARDEN_VERSION"] = b"%d" % job.version
    told[b"TREEWARDEN_KEY"] = os.fsencode(job.idempotency_key)
    if job.previous_json:
        told[b"TREEWARDEN_PREVIOUS"] = os.fsencode(job.previous_json)
    return told


def names_of(jobs: Sequence[Job]) -> bytes:
    """Their paths, a NUL after each: what `xargs -0` reads."""
    return b"".join(job.path + b"\0" for job in jobs)


def lines_of(jobs: Sequence[Job]) -> bytes:
    """A line of JSON for each, in their order."""
    return b"".join(msgspec.json.encode(_described(job)) + b"\n" for job in jobs)


def _described(job: Job) -> dict[str, object]:
    return {
        **path_fields("path", job.path),
        "key": job.idempotency_key,
        "attempt": job.attempt,
        "version": job.version,
        "previous": msgspec.Raw(job.previous_json.encode()) if job.previous_json else None,
    }
