"""Files handled and committed per second: each kind of handler, beside its limit in the same run.

    python tests/benchmarks/bench_handlers.py [repeats]

* worker: `processes` workers in Python that answer at once, 256 files in flight; beside it
  the bare pipe: the same program, the same requests and answers, 256 at a time, and nothing else.
* function: an async function that returns at once, 256 in flight; beside it the engine with a
  handler that does nothing.

"Committed" is from rows that are ready to the last one that is done: start and success, each a
transition with its line on disk, `synchronous=FULL`, a look at the file before and after.
"""

import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from daemon.cli.harness import Rig, open_rig
from daemon.config import Settle, Watch
from daemon.config_steps import FunctionStep, Step, WorkerStep
from daemon.core.model import Fingerprint, Key
from daemon.handlers import Handler, Job, Outcome
from daemon.handlers.worker_protocol import lines_of, request
from tests.benchmarks.figures import Beside, Figure, print_table

FILES = 6_000
IN_FLIGHT = 256
WORKERS = 1
LOOK_SECONDS = 0.02
WORKER = """
import json, sys
for line in sys.stdin:
    r = json.loads(line)
    print('{"pong":%d}' % r["ping"] if "ping" in r else
          '{"id":%d,"outcome":"success"}' % r["id"], flush=True)
"""
COMMAND = (sys.executable, "-ISc", WORKER)
MODULE = "async def handle(job): pass\n"


class Nothing:
    """A handler that does nothing: what is left is the engine."""

    async def run(self, job: Job) -> Outcome:  # noqa: ARG002 - whatever the job
        return Outcome("success")

    async def close(self) -> None:
        pass


async def committed(folder: Path, step: Step, handler: Handler | None = None) -> float:
    """Files a second through one step."""
    tree = folder / "tree"
    tree.mkdir()
    watch = Watch(name="bench", path=tree, settle=Settle(quiet=0.0, writers="ignore"), step=(step,))
    async with open_rig(folder, watch) as rig:
        if handler is not None:
            (the_tree,) = rig.service.trees.values()
            rig.service.dispatcher.add(the_tree, {step.name: handler})
        keys = [rig.write(f"f{number:05}") for number in range(FILES)]
        await asyncio.gather(*(rig.send(key, "look") for key in keys))
        began = time.perf_counter()
        running = asyncio.create_task(rig.service.dispatcher.run())
        while await done(rig) < FILES:  # noqa: ASYNC110 - the look at the counts is what costs
            await asyncio.sleep(LOOK_SECONDS)
        took = time.perf_counter() - began
        running.cancel()
        await asyncio.wait([running])
    return FILES / took


async def done(rig: Rig) -> int:
    counts = await rig.store.counts()
    return sum(each.files for each in counts if each.state == "done")


async def worker(folder: Path) -> float:
    step = WorkerStep(name="s", worker=COMMAND, processes=WORKERS, in_flight=IN_FLIGHT)
    return await committed(folder, step)


async def function(folder: Path) -> float:
    (folder / "bench_function.py").write_text(MODULE)
    step = FunctionStep(
        name="s", function="bench_function:handle", path=(folder,), concurrency=IN_FLIGHT
    )
    return await committed(folder, step)


async def engine(folder: Path) -> float:
    step = WorkerStep(name="s", worker=("true",), in_flight=IN_FLIGHT)
    return await committed(folder, step, Nothing())


async def pipe(folder: Path) -> float:
    """Requests a second through the pipes of one worker, as many at a time."""
    jobs = [_job(folder, number) for number in range(IN_FLIGHT)]
    batch = lines_of([request(number, job) for number, job in enumerate(jobs, 1)])
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220 - nothing else runs
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(b'{"ping":1}\n')
    stdin.flush()
    stdout.readline()
    began = time.perf_counter()
    for _ in range(FILES // IN_FLIGHT):
        stdin.write(batch)
        stdin.flush()
        for _ in range(IN_FLIGHT):
            stdout.readline()
    took = time.perf_counter() - began
    process.communicate()
    return FILES // IN_FLIGHT * IN_FLIGHT / took


def _job(folder: Path, number: int) -> Job:
    name = b"f%05d" % number
    seen = Fingerprint(8, 1_700_000_000_000_000_000, 1_700_000_000_000_000_000, number, 1)
    path = str(folder).encode() + b"/tree/" + name
    return Job(number, Key("bench", name), path, "s", 1, "0" * 32, version=3, seen=seen)


def measure(way: Callable[[Path], object]) -> float:
    gc.collect()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        return float(asyncio.run(way(Path(folder))))  # type: ignore[arg-type]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    runs = [[measure(way) for way in (worker, pipe, function, engine)] for _ in range(repeats)]
    by_worker, by_pipe, by_function, by_engine = map(statistics.median, zip(*runs, strict=True))
    print_table(
        [
            Figure("worker", by_worker, "files/s", Beside("pipe", by_pipe), least=6_000),
            Figure("function", by_function, "files/s", Beside("engine", by_engine), least=8_000),
        ]
    )


if __name__ == "__main__":
    main()
