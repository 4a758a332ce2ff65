"""The `command` kind for the conformance suite: a shell says each behaviour in the fewest words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from daemon.config_steps import CommandStep
from daemon.handlers import Handler
from daemon.handlers.command import CommandHandler
from tests.contract.kinds import Build, Kind

SCRIPTS = {
    "succeeds": "exit 0",
    "succeeds, talking": "echo out; echo err >&2; exit 0",
    "succeeds, with a result": "echo '{\"rows\": 12}'",
    "is unavailable": "exit 69",
    "says what came before": 'echo "$TREEWARDEN_PREVIOUS" >&2; exit 3',
    "fails": "echo 'no route to host' >&2; exit 3",
    "fails, naming its file": 'echo "$TREEWARDEN_RELPATH" >&2; exit 3',
    "refuses": "echo 'not a table' >&2; exit 65",
    "says 10 MB": "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo ' the end' >&2; exit 1",
    "says what it got": 'printf "%s|%s|%s|%s" "$TREEWARDEN_PATH" "$TREEWARDEN_WATCH"'
    ' "$TREEWARDEN_STEP/$TREEWARDEN_ATTEMPT/$TREEWARDEN_VERSION" "$TREEWARDEN_KEY" >&2; exit 1',
    "crashes": "kill -SEGV $$",
    "crashes on a.csv": 'case "$TREEWARDEN_RELPATH" in *a.csv) kill -SEGV $$;; esac',
    "waits at a gate": "exec 3>witness; echo up >&3; read _ <gate; exit 0",
    "stays": "exec 3>witness; echo up >&3; sleep 600",
    "stays, deaf to TERM": "trap '' TERM; exec 3>witness; sleep 600 & echo up >&3; wait",
    "ends on TERM, its child does not": "exec 3>witness;"
    " sh -c 'trap \"\" TERM; echo up >&3; sleep 600' & wait",
    "answers TERM and stays": "exec 3>witness; trap 'echo term >&3' TERM; echo up >&3;"
    " while :; do sleep 600 & wait; done",
    "leaves a child behind": "exec 3>witness; sleep 600 & echo $! >&3; echo 'so long' >&2; exit 1",
}
EXCUSES = {
    "fails, and says when": "an exit status is a number, and holds no time",
    "answers garbage": "every exit status is an answer",
    "answers half": "an exit status is there as a whole, or it is a crash",
}


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[Build]:
    def build(
        behaviour: str,
        *,
        timeout: float = 60,
        kill_after: float = 60,
        places: int = 1,  # noqa: ARG001 - a process each, as many as are asked for
    ) -> Handler:
        script = f"cd {folder} && {SCRIPTS[behaviour]}"
        command = ("/bin/sh", "-c", script.replace("{", "{{").replace("}", "}}"))
        step = CommandStep(
            name="load",
            command=command,
            timeout=timeout,
            kill_after=kill_after,
            result="stdout" if behaviour == "succeeds, with a result" else "none",
            unavailable=(69,),
        )
        return CommandHandler(step)

    yield build


KINDS = (Kind("command", SCRIPTS.keys(), _opened, EXCUSES),)
