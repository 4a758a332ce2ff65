"""The `function` kind for the conformance suite: async, in a thread, and in a process.

The functions are written into a module in the test's folder, as an operator's are.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

from daemon.config_steps import FunctionStep
from daemon.handlers import Handler
from daemon.handlers.opening import handler_of
from tests.contract.kinds import BEHAVIOURS, Build, Kind

MODULE = r"""
import asyncio, inspect, json, os, signal, subprocess, time
from daemon.handlers import Job, Reject, Retry, Unavailable

FOLDER, BEHAVIOUR, IS_ASYNC = {folder!r}, {behaviour!r}, {is_async!r}

def fail(error):
    raise error

def in_folder(name):
    return os.path.join(FOLDER, name)

def opened():
    return os.open(in_folder("witness"), os.O_WRONLY | os.O_CREAT)

def witness():
    fd = opened()
    os.write(fd, b"up\n")
    return fd

def crash(job):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)

def crash_on_a(job):
    if job.name == "a.csv":
        crash(job)

def talk(job):
    print("out")
    subprocess.run(["sh", "-c", "echo out; echo err >&2"])

def got(job):
    step = f"{{job.step}}/{{job.attempt}}/{{job.version}}"
    raise Retry("|".join((os.fspath(job), job.watch, step, job.key)))

def gate(job):
    fd = witness()

    def read():
        with open(in_folder("gate"), "rb", 0) as pipe:
            pipe.read(1)

    async def later():
        await asyncio.to_thread(read)
        os.close(fd)

    if IS_ASYNC:
        return later()
    read()
    os.close(fd)

def stay(job):
    fd = witness()

    async def later():
        try:
            await asyncio.sleep(600)
        finally:
            os.close(fd)

    if IS_ASYNC:
        return later()
    time.sleep(600)

def deaf(job):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stay(job)

def with_a_child(job):
    child = "trap '' TERM; cd $0; exec 3>witness; echo up >&3; sleep 600"
    subprocess.run(["sh", "-c", child, FOLDER])

def answer_term(job):
    signal.signal(signal.SIGTERM, lambda *_: os.write(opened(), b"term\n"))
    stay(job)

def previous(job):
    raise Retry(json.dumps(job.previous, separators=(",", ":")))

handle = {{
    "succeeds": lambda job: None,
    "succeeds, talking": talk,
    "succeeds, with a result": lambda job: {{"rows": 12}},
    "says what came before": previous,
    "fails": lambda job: fail(Retry("no route to host")),
    "fails, naming its file": lambda job: fail(Retry(job.relpath)),
    "fails, and says when": lambda job: fail(Retry("busy", after=7)),
    "refuses": lambda job: fail(Reject("not a table")),
    "is unavailable": lambda job: fail(Unavailable("the server is away")),
    "says what it got": got,
    "says 10 MB": lambda job: fail(Retry("x" * 10_000_000 + " the end")),
    "crashes": crash,
    "crashes on a.csv": crash_on_a,
    "answers garbage": lambda job: object(),
    "waits at a gate": gate,
    "stays": stay,
    "stays, deaf to TERM": deaf,
    "ends on TERM, its child does not": with_a_child,
    "answers TERM and stays": answer_term,
}}[BEHAVIOUR]

async def handle_async(job: Job):
    value = handle(job)
    return await value if inspect.isawaitable(value) else value
"""
ALL = {
    "answers half": "what a function returns is there as a whole, or it is not",
    "leaves a child behind": "a function is over when it has returned, whatever it has started",
}
INSIDE = {
    "succeeds, talking": "it runs in the daemon, and shares its output",
    "crashes": "it runs in the daemon, which would crash with it",
    "crashes on a.csv": "it runs in the daemon, which would crash with it",
    "stays, deaf to TERM": "nothing forces a function of the same process to end",
    "ends on TERM, its child does not": "what it starts is its own to end",
    "answers TERM and stays": "no signal is sent to a function of the same process",
}
THREAD = {"stays": "a thread cannot be ended: its file and its place wait for it"}
Way = Literal["async", "thread", "process"]
_numbers = count()


@asynccontextmanager
async def _opened(folder: Path, *, way: Way) -> AsyncIterator[Build]:
    handlers: list[Handler] = []
    modules = folder / "modules"  # for Python may put a folder of what it has compiled beside one

    def build(
        behaviour: str, *, timeout: float = 60, kill_after: float = 60, places: int = 1
    ) -> Handler:
        name = f"behaviour_{next(_numbers)}"
        text = MODULE.format(folder=str(folder), behaviour=behaviour, is_async=way == "async")
        modules.mkdir(exist_ok=True)
        (modules / f"{name}.py").write_text(text, encoding="utf-8")
        step = FunctionStep(
            name="load",
            function=f"{name}:{'handle_async' if way == 'async' else 'handle'}",
            path=(modules,),
            pool="process" if way == "process" else "thread",
            timeout=timeout,
            kill_after=kill_after,
            concurrency=places,
        )
        handlers.append(handler_of(step, "node"))
        return handlers[-1]

    try:
        yield build
    finally:
        for handler in handlers:
            await handler.close()


def _kind(way: Way, excuses: Mapping[str, str]) -> Kind:
    shows = BEHAVIOURS.keys() - excuses.keys()
    return Kind(f"function-{way}", shows, partial(_opened, way=way), excuses)


KINDS = (
    _kind("async", {**ALL, **INSIDE}),
    _kind("thread", {**ALL, **INSIDE, **THREAD}),
    _kind("process", ALL),
)
