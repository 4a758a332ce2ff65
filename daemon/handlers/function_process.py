"""The process of a `function` step with `pool = "process"`: a worker that calls the function.

What the function prints goes to stderr, and so into the error of what fails: the worker's own
output is what the daemon listens to.
"""

import os
import sys
from typing import IO

import msgspec
from msgspec import Raw, Struct

from daemon.handlers import Job
from daemon.handlers.function_loading import load_function
from daemon.handlers.function_outcomes import call
from daemon.handlers.worker_protocol import Answer


class FunctionRequest(Struct, frozen=True):
    """The whole job, as the function gets it: paths are bytes, in base 64."""

    id: int
    job: Job


class _Message(Struct, frozen=True):
    """What comes in a line: a request or a ping."""

    id: int = 0
    job: Job | None = None
    ping: int | None = None


def main(name: str) -> None:
    """Answer requests about a function until there are no more."""
    # Where the daemon's modules are is no business of a program that the function starts.
    os.environ.pop("PYTHONPATH", None)
    requests, answers = _occupy_streams()
    function = load_function(name)
    read = msgspec.json.Decoder(_Message).decode
    write = msgspec.json.Encoder().encode
    for line in requests:
        message = read(line)
        if message.job is None:
            answer = Answer(pong=message.ping)
        else:
            outcome = call(function, message.job)
            answer = Answer(
                message.id,
                # The other workers of the machine go on: what this one lacks may be its own limit.
                "unavailable" if outcome.verdict == "defer" else outcome.verdict,
                outcome.error,
                outcome.after,
                Raw((outcome.result or "null").encode()),
            )
        answers.write(write(answer) + b"\n")
        answers.flush()


def _occupy_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Take the two pipes for ourselves: the function finds /dev/null and stderr in their place."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


if __name__ == "__main__":
    main(sys.argv[1])
