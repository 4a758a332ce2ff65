"""The command `treewarden`, also as `python -m daemon`."""

import gc

# What is imported stays: to search it for garbage again and again takes a tenth of every start.
# A command is over before it makes any; the daemon sets its own thresholds (`engine.tuning`).
gc.disable()

from daemon.cli import main  # noqa: E402 - only now

if __name__ == "__main__":
    main()
