"""A worker's process: `python -m server.engine NUMBER_OF_ITS_PIPE`."""

import gc


def run() -> None:
    """Import, load and serve. What lives until the load's end is not looked through for garbage."""
    gc.disable()
    from server.engine.main import main

    main()


if __name__ == "__main__":
    run()
