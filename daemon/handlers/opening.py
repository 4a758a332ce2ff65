"""Makes the handler that a step asks for."""

from daemon.config_after import FilingStep
from daemon.config_steps import CommandStep, HttpStep, Step
from daemon.handlers import Handler
from daemon.handlers.batches import BatchHandler
from daemon.handlers.command import CommandHandler
from daemon.handlers.filing import FilingHandler
from daemon.handlers.record import Record


def handler_of(step: Step, node: str, record: Record | None = None) -> Handler:
    """The handler of a step, of the kind that its configuration names.

    `node` is this host's name, `record` where it writes down which processes it has started.

    Raises:
        ConfigError: something that the step names, a secret for instance, cannot be used.
    """
    if isinstance(step, CommandStep):
        program = CommandHandler(step, record)
        if step.batch == 1:
            return program
        return BatchHandler(program, size=step.batch, places=step.concurrency)
    if isinstance(step, FilingStep):
        return FilingHandler(step.after, step.watch)
    if isinstance(step, HttpStep):
        # Imported here: it brings aiohttp with it.
        from daemon.handlers.http import HttpHandler  # noqa: PLC0415

        return HttpHandler(step, node)
    raise TypeError(f"{type(step).__name__} is no kind of step that has a handler")
