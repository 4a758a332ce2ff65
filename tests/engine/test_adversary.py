"""The checks of `treewarden selftest`: each passes here, and fails when its subject is broken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.adversary import CHECKS, CheckFailed
from daemon.core import lifecycle
from daemon.core.model import Key, Record, Transition
from daemon.engine.journal import Journal
from daemon.engine.locks import LockMap, Slot
from daemon.store.sqlite import SqliteStore


@pytest.mark.parametrize("name", CHECKS)
async def test_check_passes(name: str, tmp_path: Path) -> None:
    """Every check of the selftest passes on a sound engine."""
    assert await CHECKS[name](tmp_path)


async def test_contention_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the version check of the ledger, ten starts of one file are not one."""

    class NoLock:
        async def __aenter__(self) -> Slot:
            return Slot()

        async def __aexit__(self, *_: object) -> None:
            return None

    def hold(_self: LockMap, _key: Key) -> NoLock:
        return NoLock()

    async def apply(
        self: SqliteStore, batch: Sequence[tuple[Transition, Record]], journaled: int
    ) -> list[bool]:
        await real(self, batch, journaled)
        return [True] * len(batch)

    real = SqliteStore.apply
    monkeypatch.setattr(LockMap, "hold", hold)
    monkeypatch.setattr(SqliteStore, "apply", apply)
    with pytest.raises(CheckFailed, match="starts were committed"):
        await CHECKS["ten at once on one file"](tmp_path)


async def test_missing_line_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that does not ask the database after an error misses the line."""
    monkeypatch.setattr(Journal, "doubtful", lambda _self: None)
    with pytest.raises(CheckFailed, match="lines"):
        await CHECKS["error after commit"](tmp_path)


async def test_wrong_table_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with an edge of its own is not the declared machine."""
    wrong: dict[Any, Any] = {**lifecycle.TABLE}
    wrong["ready", "start"] = wrong["ready", "vanish"]
    for module in ("daemon.core.equivalence", "daemon.core.lifecycle"):
        monkeypatch.setattr(f"{module}.TABLE", wrong)
    with pytest.raises(CheckFailed):
        await CHECKS["compiled table equals the engine"](tmp_path)


async def test_undocumented_field_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line with a field that the schema does not have fails the check."""
    real = Journal._say

    def say(self: Journal, level: str, event: str, **fields: Any) -> None:
        real(self, level, event, surprise=1, **fields)

    monkeypatch.setattr(Journal, "_say", say)
    with pytest.raises(CheckFailed, match="unknown field surprise"):
        await CHECKS["every line has its fields"](tmp_path)
