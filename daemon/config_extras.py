"""What is installed only where it is asked for: whether it is there, and how to get it."""

import sys

from daemon.config_report import WrongValueError, wrong

# The parts of an extra, as they are imported.
_PARTS = {"metrics": ("aiohttp", "prometheus_client"), "http": ("aiohttp",)}


def without(extra: str, value: object, what: str) -> WrongValueError | None:
    """What is wrong with a value that takes an extra which is not all there; else None.

    Its parts are looked for, not imported.
    """
    from importlib.util import find_spec  # noqa: PLC0415 - 3 ms that few configurations need

    absent = [name for name in _PARTS[extra] if find_spec(name) is None]
    if not absent:
        return None
    remedy = f"run {sys.executable} -m pip install 'treewarden[{extra}]'"
    return wrong(value, remedy, f"{what} without {' and '.join(absent)}")
