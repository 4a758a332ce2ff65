"""Names for attempts: each is told apart from all others, of whatever run of whatever daemon."""

import secrets
from collections.abc import Callable
from itertools import count


def attempt_ids() -> Callable[[], str]:
    """What gives the next name each time that it is called."""
    run, numbers = secrets.token_hex(4), count(1)
    return lambda: f"{run}-{next(numbers):x}"
