"""The life cycle for people: a Mermaid diagram and a Markdown table, from the declaration itself.

Our own few lines instead of python-statemachine's `MermaidGraphMachine`: that draws one edge for
each source, target and event, so the second and third way from `untracked` to `done` are lost.
"""

from typing import get_args

from daemon.core.lifecycle import TABLE, Edge, LifeCycle
from daemon.core.model import Event


def mermaid() -> str:
    """A `stateDiagram-v2`: one arrow from state to state, with all the events that take it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (source, event), edges in TABLE.items():
        for target in dict.fromkeys(edge.to for edge in edges):
            label = f"{event}{_conditions(edges, target)}"
            arrows.setdefault((source, target), []).append(label)
    lines = [f"    {a} --> {b} : {'<br/>'.join(labels)}" for (a, b), labels in arrows.items()]
    initial = LifeCycle.initial_state
    start = [f"    [*] --> {initial.value}"] if initial else []
    return "\n".join(["stateDiagram-v2", *start, *lines])


def table() -> str:
    """One row for each event and set of edges; the states that share them stand together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for (source, event), edges in TABLE.items():
        rows.setdefault((event, _ways(source, edges)), []).append(source)
    order = get_args(Event)
    cells = sorted(rows.items(), key=lambda row: order.index(row[0][0]))
    lines = [f"| `{event}` | {', '.join(states)} | {ways} |" for (event, ways), states in cells]
    return "\n".join(["| event | from | to: the first open edge |", "|---|---|---|", *lines])


def _conditions(edges: tuple[Edge, ...], target: str) -> str:
    """The guards of the edges to this target; `else` where others were asked before."""
    names = [edge.guard or "else" for edge in edges if edge.to == target]
    return "" if names == ["else"] and len(edges) == 1 else f" [{', '.join(names)}]"


def _ways(source: str, edges: tuple[Edge, ...]) -> str:
    return " · ".join(_way(source, edge, only=len(edges) == 1) for edge in edges)


def _way(source: str, edge: Edge, *, only: bool) -> str:
    to = "the same state" if edge.to == source else f"**{edge.to}**"
    if edge.guard:
        return f"{to} if `{edge.guard}`"
    return to if only else f"else {to}"
