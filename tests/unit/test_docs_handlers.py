"""Every configuration that docs/handlers.md shows can be loaded."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load
from daemon.config_steps import KINDS
from daemon.errors import ConfigError, Problem

PAGE = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text(encoding="utf-8")
TABLES = {"daemon", "log", "metrics", "watch"}


def _blocks() -> list[Any]:
    """Each block of TOML, named by the heading that it stands below."""
    parts = re.split(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)
    return [
        pytest.param(block, id=heading)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
        for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    ]


def _completed(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A fragment with what it leaves out: it may be of a file, of a watch, or of a step."""
    if not raw.keys() & TABLES:
        raw = {"watch": {"step": [raw]}}
    if isinstance(raw.get("watch"), dict):
        raw["watch"] = [raw["watch"]]
    raw.setdefault("daemon", {})["state_dir"] = str(folder / "state")
    for number, watch in enumerate(raw.setdefault("watch", [{}])):
        watch.setdefault("name", f"watch-{number}")
        tree = folder / "trees" / str(watch.get("path", number)).lstrip("/")
        tree.mkdir(parents=True)
        watch["path"] = str(tree)
        steps = [*watch.get("step", []), *watch.get("removed", [])]
        for index, step in enumerate(steps):
            step.setdefault("name", f"step-{index}")
            if not step.keys() & KINDS.keys():
                step["command"] = ["true", "{path}"]
    return raw


def _written(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        parts = (f"{json.dumps(key)} = {_written(each)}" for key, each in value.items())
        return f"{{ {', '.join(parts)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value)


def test_there_are_blocks() -> None:
    """The page has an example for each kind, and five recipes."""
    named = [param.id for param in _blocks()]
    assert len(named) >= len(KINDS) + 5
    assert len(re.findall(r"^### ", PAGE.partition("\n## Recipes\n")[2], re.MULTILINE)) == 5


@pytest.mark.parametrize("block", _blocks())
def test_block(block: str, tmp_path: Path) -> None:
    """What the page shows is what the daemon takes."""
    raw = _completed(tomllib.loads(block), tmp_path)
    path = tmp_path / "config.toml"
    lines = [f"{json.dumps(key)} = {_written(value)}" for key, value in raw.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert [str(problem) for problem in _problems(path)] == []


def _problems(path: Path) -> list[Problem]:
    try:
        load(path)
    except ConfigError as error:
        return error.problems
    return []
