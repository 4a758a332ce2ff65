"""A job as a CloudEvents 1.0 event: as JSON, or as headers beside the file itself.

docs/handlers.md documents both.
"""

import re
import time
from urllib.parse import quote, quote_from_bytes

import msgspec
from msgspec import UNSET, Struct, UnsetType

from daemon.core.model import Plan
from daemon.core.texts import path_fields, timestamp
from daemon.handlers import Job

JSON = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
_TYPES: dict[Plan, str] = {"process": "treewarden.file", "remove": "treewarden.file.removed"}
# What stands for itself in a header: printable ASCII but '"' and '%'. The rest is %XX.
_PLAIN = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")
_IS_PLAIN = re.compile(f"[{re.escape(_PLAIN)}]*")


class _Event(Struct, frozen=True, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: object
    datacontenttype: str = "application/json"


class _Data(Struct, frozen=True, gc=False, omit_defaults=True):
    watch: str
    path: str
    relpath: str
    step: str
    attempt: int
    version: int
    file_id: int
    path_b64: str | UnsetType = UNSET
    relpath_b64: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    modified: str | UnsetType = UNSET
    previous: msgspec.Raw | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode


class Source:
    """Makes the events of one host: `node` is its name in every line of the log as well."""

    def __init__(self, node: str) -> None:
        self._prefix = f"/treewarden/{quote(node, safe='')}/"

    def as_json(self, job: Job) -> bytes:
        """The whole event, in the structured mode."""
        event = _Event(
            "1.0",
            job.idempotency_key,
            self._prefix + job.file.watch,
            _TYPES[job.plan],
            quote_from_bytes(job.file.path),
            timestamp(time.time_ns() // 1000),
            _data(job),
        )
        return _encode(event)

    def as_headers(self, job: Job) -> dict[str, str]:
        """The event without its data, which is the file: the binary mode."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": job.idempotency_key,
            "ce-source": self._prefix + job.file.watch,
            "ce-type": _TYPES[job.plan],
            "ce-subject": quote_from_bytes(job.file.path),
            "ce-time": timestamp(time.time_ns() // 1000),
            "ce-watch": job.file.watch,
            "ce-step": job.step,
            "ce-attempt": str(job.attempt),
            "ce-version": str(job.version),
            "ce-fileid": str(job.file_id),
        }
        if job.previous_json is not None:
            headers["ce-previous"] = job.previous_json
        return {name: _escaped(value) for name, value in headers.items()}


def _data(job: Job) -> _Data:
    return _Data(
        watch=job.file.watch,
        step=job.step,
        attempt=job.attempt,
        version=job.version,
        file_id=job.file_id,
        size=UNSET if job.seen is None else job.seen.size,
        modified=UNSET if job.seen is None else timestamp(job.seen.mtime_ns // 1000),
        previous=UNSET if job.previous_json is None else msgspec.Raw(job.previous_json.encode()),
        **path_fields("path", job.path),
        **path_fields("relpath", job.file.path),
    )


def _escaped(value: str) -> str:
    return value if _IS_PLAIN.fullmatch(value) else quote(value, safe=_PLAIN)
