"""What the commands of the CLI share: how they get their configuration, and how they fail."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from server.config import Config

DEFAULT_CONFIG = Path("config.yaml")

EXIT_FAILED, EXIT_CONFIG, EXIT_STOPPED = 1, 2, 130

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The YAML file.", show_default=str(DEFAULT_CONFIG)),
]


def load(path: Path | None, server: dict[str, object], *, needed: bool = True) -> "Config":
    """The configuration at `path`, or at the default one, or without a file if none is needed.

    Raises ConfigError.
    """
    from server.config import ConfigError
    from server.config_file import load

    if path is None and DEFAULT_CONFIG.is_file():
        path = DEFAULT_CONFIG
    if path is None and needed:
        raise ConfigError(
            f"no --config given, and there is no {DEFAULT_CONFIG} in {Path.cwd()}; "
            "`corral config` prints one"
        )
    return load(path, server)


@contextmanager
def told() -> Generator[None]:
    """End the process with a message where a command cannot go on."""
    from server.commands.failure import CommandError
    from server.config import ConfigError
    from server.errors import CorralError

    try:
        yield
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except CommandError as error:
        fail(str(error), EXIT_FAILED)
    except CorralError as error:
        fail(error.message, EXIT_FAILED)


def fail(message: str, code: int) -> NoReturn:
    """End the process."""
    typer.echo(f"corral: {message}", err=True)
    raise typer.Exit(code)
