"""`corral`, and `python -m server`."""

import os
import sys
from contextlib import closing

from server.pool.process import COMMAND
from server.pool.spare import Spare


def main() -> None:
    """Run the command line, for `corral serve` with a worker's process ahead."""
    # Pydantic would look through all installed packages for plugins, here and in each worker.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with closing(Spare(COMMAND)) as spare:
        if sys.argv[1:2] == ["serve"]:
            # What it imports takes as long as what we do, and its model has to wait for both.
            spare.prepare()
        from server.command_line import app

        app(prog_name="corral", obj=spare)


if __name__ == "__main__":
    main()
