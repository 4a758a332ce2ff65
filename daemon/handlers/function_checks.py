"""What is wrong with the functions that a configuration names, before anything starts."""

from collections.abc import Iterator

from daemon.config import Config
from daemon.config_report import Finding
from daemon.config_steps import FunctionStep
from daemon.errors import Location
from daemon.handlers.function_loading import FunctionError, is_async, load_function


def problems_of(config: Config) -> Iterator[Finding]:
    """What is wrong with the functions that a configuration names: all of it. Imports them."""
    for at, step in _functions_of(config):
        try:
            _check(step)
        except FunctionError as error:
            yield Finding((*at, error.key), error.found, error.remedy)


def _functions_of(config: Config) -> Iterator[tuple[Location, FunctionStep]]:
    for number, watch in enumerate(config.watch):
        for key, steps in (("step", watch.step), ("removed", watch.removed)):
            for index, step in enumerate(steps):
                if isinstance(step, FunctionStep):
                    yield ("watch", number, key, index), step


def _check(step: FunctionStep) -> None:
    if is_async(load_function(step.function, step.path)) and step.pool == "process":
        found = f"{step.function!r} is async, and runs in the daemon's own loop"
        raise FunctionError(found, "leave pool away, or let the function not be async", "pool")
