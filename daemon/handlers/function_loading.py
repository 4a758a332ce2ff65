"""Finds the function that a step names, and says what is wrong with it if it cannot be used."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from daemon.handlers import Job

Function = Callable[[Job], object]
_JOB = "let it take one argument, the job"


class FunctionError(Exception):
    """There is no such function, or none that takes a job; `key` of the step, and the remedy."""

    def __init__(self, found: str, remedy: str, key: str = "function") -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy
        self.key = key


def load_function(name: str, folders: Sequence[Path] = ()) -> Function:
    """Import `module:callable`; `folders` are where modules are looked for last.

    Raises:
        FunctionError: it is not there, or it takes no job.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FunctionError(f"there is no folder '{folder}'", "make it, or correct it", "path")
        if str(folder) not in sys.path:
            # Behind all others: a module there must not take the place of one of Python's or ours.
            sys.path.append(str(folder))
    module, _, attributes = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        said = f"cannot import {module!r}: {_said(error)}"
        raise FunctionError(said, "install it, correct it, or add its folder to path") from error
    try:
        function: Function = reduce(getattr, attributes.split("."), found)
    except AttributeError as error:
        said = f"module {module!r} has no {attributes!r}"
        raise FunctionError(said, f"see {getattr(found, '__file__', module)}") from error
    _refuse_what_takes_no_job(name, function)
    return function


def is_async(function: Function) -> bool:
    """Whether calling it gives something to await."""
    call = getattr(function, "__call__", None)  # noqa: B004 - its own, if an object has one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _refuse_what_takes_no_job(name: str, function: object) -> None:
    if not callable(function):
        raise FunctionError(f"{name!r} is {type(function).__name__}, not a function", _JOB)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise FunctionError(f"{name!r} is a generator, and would not run", "let it not yield")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some that are written in C nothing is known
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise FunctionError(f"{name!r} cannot be called with a job: {error}", _JOB) from error


def _said(error: BaseException) -> str:
    """The error, and the last place in a file where it was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {error}{where}"
