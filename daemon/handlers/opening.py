"""Makes the handler that a step asks for."""

from daemon.config_steps import CommandStep, Step
from daemon.handlers import Handler
from daemon.handlers.command import CommandHandler


def handler_of(step: Step) -> Handler:
    """The handler of a step, of the kind that its configuration names."""
    if isinstance(step, CommandStep):
        return CommandHandler(step.command, timeout=step.timeout, kill_after=step.kill_after)
    raise TypeError(f"{type(step).__name__} is no kind of step that has a handler")
