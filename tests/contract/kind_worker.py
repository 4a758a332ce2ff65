"""The `worker` kind for the conformance suite: one Python program shows every behaviour.

Two ways to run it: a worker for each file at once, and one worker for all of them.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from daemon.config_steps import WorkerStep
from daemon.handlers import Handler
from daemon.handlers.worker import WorkerHandler
from tests.contract.kinds import BEHAVIOURS, Build, Kind

PROGRAM = r"""
import json, os, signal, subprocess, sys, threading, time
folder, behaviour = sys.argv[1:]
os.chdir(folder)

def answer(request, outcome="success", **more):
    sys.stdout.write(json.dumps({"id": request["id"], "outcome": outcome, **more}) + "\n")
    sys.stdout.flush()

def shout(text):
    os.write(2, text.encode())

def witness():
    fd = os.open("witness", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"up\n")
    return fd

def crash(request):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)

def crash_on_a(request):
    crash(request) if request["relpath"].endswith("a.csv") else answer(request)

def got(request):
    words = "{path}|{watch}|{step}/{attempt}/{version}|{key}".format(**request)
    answer(request, "retry", error=words)

def flood(request):
    for _ in range(100):
        shout("x" * 100_000)
    shout(" the end")
    os._exit(1)

def garbage(request):
    print("all went well", flush=True)

def half(request):
    os.write(1, b'{"id": %d, "outcome": "succ' % request["id"])
    os._exit(0)

def gate(request):
    fd = witness()
    os.read(os.open("gate", os.O_RDONLY), 1)
    os.close(fd)
    answer(request)

def stay(request):
    witness()
    time.sleep(600)

def with_a_child(request):
    child = "trap '' TERM; exec 3>witness; echo up >&3; sleep 600"
    subprocess.run(["sh", "-c", child])

def on_term(*_):
    os.write(os.open("witness", os.O_WRONLY), b"term\n")

if behaviour == "stays, deaf to TERM":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if behaviour == "answers TERM and stays":
    signal.signal(signal.SIGTERM, on_term)

handle = {
    "succeeds": answer,
    "succeeds, talking": lambda r: (shout("err"), answer(r)),
    "succeeds, with a result": lambda r: answer(r, result={"rows": 12}),
    "says what came before": lambda r: answer(
        r, "retry", error=json.dumps(r["previous"], separators=(",", ":"))),
    "fails": lambda r: answer(r, "retry", error="no route to host"),
    "fails, naming its file": lambda r: answer(r, "retry", error=r["relpath"]),
    "fails, and says when": lambda r: answer(r, "retry", error="busy", after=7),
    "refuses": lambda r: answer(r, "reject", error="not a table"),
    "is unavailable": lambda r: answer(r, "unavailable", error="the server is away"),
    "says what it got": got,
    "says 10 MB": flood,
    "crashes": crash,
    "crashes on a.csv": crash_on_a,
    "answers garbage": garbage,
    "answers half": half,
    "waits at a gate": gate,
    "stays": stay,
    "stays, deaf to TERM": stay,
    "ends on TERM, its child does not": with_a_child,
    "answers TERM and stays": stay,
}[behaviour]

for line in sys.stdin:
    message = json.loads(line)
    if "ping" in message:
        print(json.dumps({"pong": message["ping"]}), flush=True)
    else:
        threading.Thread(target=handle, args=(message,), daemon=True).start()
os._exit(0)  # the interpreter's own end may wait for a thread that holds a stream
"""
EXCUSES = {"leaves a child behind": "a worker stays, and what it has started ends with it"}


@asynccontextmanager
async def _opened(folder: Path, *, shared: bool) -> AsyncIterator[Build]:
    handlers: list[Handler] = []

    def build(
        behaviour: str, *, timeout: float = 60, kill_after: float = 60, places: int = 1
    ) -> Handler:
        step = WorkerStep(
            name="load",
            worker=(sys.executable, "-ISc", PROGRAM, str(folder), behaviour),
            timeout=timeout,
            kill_after=kill_after,
            processes=1 if shared else places,
            in_flight=places if shared else 1,
        )
        handlers.append(WorkerHandler(step))
        return handlers[-1]

    try:
        yield build
    finally:
        for handler in handlers:
            await handler.close()


def _kind(name: str, *, shared: bool) -> Kind:
    shows = BEHAVIOURS.keys() - EXCUSES.keys()
    return Kind(name, shows, partial(_opened, shared=shared), EXCUSES)


KINDS = (_kind("worker", shared=False), _kind("worker-shared", shared=True))
