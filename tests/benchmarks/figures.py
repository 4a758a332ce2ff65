"""How a benchmark says what it found: the figure, what it was measured beside, and the goal."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Beside(NamedTuple):
    """A peer or a limit, measured in the same run and the same unit."""

    name: str
    value: float


class Figure(NamedTuple):
    """One line of the table. `times` is a goal relative to what it stands beside.

    `most` and `least` are goals of their own.
    """

    what: str
    value: float
    unit: str
    beside: Beside | None = None
    times: float | None = None
    most: float | None = None
    least: float | None = None


def print_table(figures: Sequence[Figure]) -> None:
    """Each figure with its peer, their ratio, and whether the goal is reached."""
    rows = [("what", "figure", "beside it", "ratio", "goal", "reached")]
    rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def spread(unit: str, values: Sequence[float]) -> str:
    """The median, and how far the runs lie apart."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{shown(middle)} {unit} [{shown(low)} to {shown(high)}]"


def shown(value: float) -> str:
    """Three digits that count, and no exponent."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    beside, ratio = "-", "-"
    if figure.beside:
        beside = f"{figure.beside.name} {shown(figure.beside.value)} {figure.unit}"
    if figure.beside and figure.beside.value:
        ratio = shown(figure.value / figure.beside.value)
    value = f"{shown(figure.value)} {figure.unit}"
    return figure.what, value, beside, ratio, *_goal(figure)


def _goal(figure: Figure) -> tuple[str, str]:
    if figure.most is not None:
        return f"<= {figure.most:g} {figure.unit}", _word(figure.value <= figure.most)
    if figure.least is not None:
        return f">= {figure.least:g} {figure.unit}", _word(figure.value >= figure.least)
    if figure.times is None:
        return "-", "-"
    if figure.beside is None:
        return f"<= {figure.times:g} x", "no peer"
    reached = figure.value <= figure.times * figure.beside.value
    return f"<= {figure.times:g} x {figure.beside.name}", _word(reached)


def _word(reached: bool) -> str:  # noqa: FBT001 - the one thing it says
    return "yes" if reached else "NO"
