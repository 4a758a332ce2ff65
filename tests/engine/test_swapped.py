"""What is put in a file's place between settling and its start is handed to no handler."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import Gate, Open
from tests.unit import swaps


@pytest.mark.parametrize("swap", swaps.EACH)
async def test_not_handed_over(engine: Open, tree: Path, swap: Callable[[Path, str], None]) -> None:
    """The start looks at the disk once more, at every component; whatever the kind of handler."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("d/a")
        await rig.send(path, "look")
        row = await rig.state(path, ["ready"])
        swap(tree, "d/a")
        await rig.send(path, "start", version=row.version)
        assert (await rig.row(path)).state != "processing"
        assert gate.jobs.empty()
