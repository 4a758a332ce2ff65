"""The house: imports go down the layers only, and no module grows into a sink."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "daemon"
MODULES = sorted(ROOT.rglob("*.py"))
# A prefix of a module's path to its layer; the longest prefix counts.
LAYERS = {
    "__init__": 0,
    "errors": 0,
    "config": 0,
    "config_": 0,
    "locate": 0,
    "toml_lines": 0,
    "schema": 0,
    "core": 1,
    "store": 2,
    "handlers": 2,
    "engine": 3,
    "sources": 4,
    "ops": 4,
    "service": 5,
    "cli": 6,
    "__main__": 6,
}
# Folders whose modules must not know each other: each is one kind of the same thing.
ADAPTERS = ("sources", "ops")
# Parts of a source in modules of their own, by the beginning of their names: known to it alone.
PARTS = {"sources.watch": "sources.hints", "sources.root": "sources.roots"}
LONGEST = 300


def name_of(path: Path) -> str:
    """A module's dotted name below the package; a package's own name for its __init__."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(name: str) -> int:
    fitting = [
        prefix
        for prefix in LAYERS
        if name == prefix or name.startswith((prefix + ".", prefix + "_"))
    ]
    assert fitting, f"daemon.{name} belongs to no layer"
    return LAYERS[max(fitting, key=len)]


def source_of(name: str) -> str:
    """The source that a module is, or is a part of."""
    return next((whole for part, whole in PARTS.items() if name.startswith(part)), name)


def imports_of(path: Path) -> list[str]:
    """What a module imports from the package at run time, names below the package."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("daemon"):
            module = (node.module or "").removeprefix("daemon").lstrip(".")
            for alias in node.names:
                nested = f"{module}.{alias.name}".lstrip(".")
                is_module = (ROOT / nested.replace(".", "/")).with_suffix(".py").exists()
                found.append(nested if is_module else module or "__init__")
        elif isinstance(node, ast.Import):
            found += [
                alias.name.removeprefix("daemon.")
                for alias in node.names
                if alias.name.startswith("daemon.")
            ]
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    """A module imports nothing from a layer above its own."""
    own = name_of(path)
    above = [name for name in imports_of(path) if layer_of(name) > layer_of(own)]
    assert not above, f"daemon.{own} imports {above} from a layer above"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_adapters_do_not_know_each_other(path: Path) -> None:
    """A source imports no other source: each is a stand-alone reason to touch a file."""
    own = name_of(path)
    folder = own.split(".")[0]
    if folder in ADAPTERS:
        known = [name for name in imports_of(path) if name.startswith(folder + ".")]
        assert not [name for name in known if source_of(name) != source_of(own)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_a_sink(path: Path) -> None:
    """No module has more than 300 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_no_import_cycles() -> None:
    """The modules can be put into an order in which each imports only earlier ones."""
    graph = {name_of(path): set(imports_of(path)) for path in MODULES}
    done: set[str] = {"__init__"}
    while rest := {name for name in graph if name not in done}:
        free = {name for name in rest if graph[name] <= done | {name}}
        assert free, f"these import each other: {sorted(rest)}"
        done |= free


def test_statemachine_has_one_importer() -> None:
    """The life cycle's library is known to the life cycle alone."""
    importers = [
        name_of(path)
        for path in MODULES
        if "statemachine"
        in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        }
    ]
    assert importers == ["core.lifecycle"]


def test_only_render_prints() -> None:
    """One module writes to standard output for people: `cli/render.py` (and click's own help)."""
    printing = [
        name_of(path)
        for path in MODULES
        if any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert set(printing) <= {"cli.render"}
