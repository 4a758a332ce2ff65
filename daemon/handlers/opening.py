"""Makes the handler that a step asks for.

What few configurations name is imported when one does: no start waits for aiohttp in vain.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import cast

from daemon.config_after import FilingStep
from daemon.config_steps import CommandStep, FunctionStep, HttpStep, Step, WorkerStep
from daemon.handlers import Handler, Job, Say, silent
from daemon.handlers.archive import Guard
from daemon.handlers.command import CommandHandler
from daemon.handlers.filing import FilingHandler
from daemon.handlers.parts import NOWHERE
from daemon.handlers.record import Record
from daemon.handlers.threads import Threads

GuardOf = Callable[[FilingStep, Threads], Guard | None]


def handler_of(  # noqa: PLR0911 - a kind each
    step: Step,
    node: str,
    record: Record | None = None,
    say: Say = silent,
    guard_of: GuardOf = lambda step, threads: None,  # noqa: ARG005 - by position
) -> Handler:
    """The handler of a step, of the kind that its configuration names.

    `node` is this host's name, `record` where it writes down which processes it has started
    and what it has begun to write. `say` hears of what is news to an operator, and `guard_of` makes
    what knows the folder where a step takes files.

    Raises:
        ConfigError: something that the step names, a secret for instance, cannot be used.
        FunctionError: the function that it names cannot be used.
    """
    match step:
        case CommandStep(batch=1):
            return CommandHandler(step, record)
        case CommandStep():
            from daemon.handlers.batches import BatchHandler  # noqa: PLC0415

            program = CommandHandler(step, record)
            return BatchHandler(program, size=step.batch, places=step.concurrency)
        case WorkerStep():
            from daemon.handlers.worker import WorkerHandler  # noqa: PLC0415

            return WorkerHandler(step, record, say=say)
        case HttpStep():
            from daemon.handlers.http import HttpHandler  # noqa: PLC0415

            return HttpHandler(step, node)
        case FunctionStep(pool="process"):
            return _processes(step, record, say)
        case FunctionStep():
            return _function(step)
        case FilingStep():
            threads = Threads(f"take-{step.watch}", step.concurrency)
            parts = record.parts if record else NOWHERE
            guard = guard_of(step, threads)
            return FilingHandler(step.after, step.watch, threads, parts, guard)
    raise TypeError(f"{type(step).__name__} is no kind of step that has a handler")


def _processes(step: FunctionStep, record: Record | None, say: Say) -> Handler:
    """Workers that call the function: with this Python, and with all that it can import."""
    from daemon.handlers import function_process  # noqa: PLC0415
    from daemon.handlers.worker import WorkerHandler  # noqa: PLC0415

    places = [*filter(None, sys.path), *map(str, step.path)]
    workers = WorkerStep(
        name=step.name,
        worker=(sys.executable, "-P", "-m", function_process.__name__, step.function),
        env={"PYTHONPATH": os.pathsep.join(places)},
        processes=step.concurrency,
        timeout=step.timeout,
        kill_after=step.kill_after,
    )
    return WorkerHandler(workers, record, function_process.FunctionRequest, say)


def _function(step: FunctionStep) -> Handler:
    """The function in this process: awaited, or called in threads."""
    from daemon.handlers.function import AsyncFunctionHandler  # noqa: PLC0415
    from daemon.handlers.function_loading import is_async, load_function  # noqa: PLC0415
    from daemon.handlers.function_threads import ThreadFunctionHandler  # noqa: PLC0415

    function = load_function(step.function, step.path)
    if is_async(function):
        awaited = cast("Callable[[Job], Awaitable[object]]", function)
        return AsyncFunctionHandler(awaited, timeout=step.timeout)
    return ThreadFunctionHandler(
        function, threads=step.concurrency, timeout=step.timeout, kill_after=step.kill_after
    )
