"""Reads a configuration as a daemon needs it: with the functions that it names."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from daemon import locate
from daemon.config import Config, load
from daemon.config_report import to_problems
from daemon.config_steps import FunctionStep
from daemon.errors import ConfigError


def load_whole(path: Path) -> Config:
    """Read and check a configuration, and import its functions. Raises `ConfigError`."""
    config = load(path)
    steps = (step for watch in config.watch for step in (*watch.step, *watch.removed))
    if any(isinstance(step, FunctionStep) for step in steps):
        # Imported here: most configurations name none, and need not wait for it.
        from daemon.handlers.function_checks import problems_of  # noqa: PLC0415

        with redirect_stdout(sys.stderr):  # what a module prints is no part of any answer
            problems = list(problems_of(config))
        if problems:
            raise ConfigError(to_problems(problems, str(path), locate.read_text(path)))
    return config
