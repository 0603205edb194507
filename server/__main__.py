"""The CLI `corral`. What a command needs is imported when it runs."""

import asyncio
import logging
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from server import __version__

if TYPE_CHECKING:
    from server.config import Config, ModelConfig
    from server.pool.catalog import Catalog
    from server.pool.pool import ModelPool

log = logging.getLogger("corral")

app = typer.Typer(
    name="corral",
    help="Serve a pool of GGUF models behind one OpenAI-compatible HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DEFAULT_CONFIG = Path("config.yaml")

BACKLOG = 2048
"""Connections that may wait to be accepted."""

MOST_NAMED = 10
"""Models that are named when the server starts."""

STOP_S = 5
"""Seconds that running requests have to end when the server is told to stop."""

EXIT_FAILED, EXIT_CONFIG, EXIT_STOPPED = 1, 2, 130

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The YAML file.", show_default=str(DEFAULT_CONFIG)),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"corral {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serve a pool of GGUF models behind one OpenAI-compatible HTTP API."""


@app.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="How much is logged."),
    ] = None,
) -> None:
    """Serve the models of the configuration."""
    given = {"host": host, "port": port, "log_level": log_level}
    settings = _load(config, {key: value for key, value in given.items() if value is not None})
    _log_to_stderr(settings.server.log_level)
    catalog = _catalog(settings)
    if not catalog.entries:
        _fail(
            "no models are configured and none were found; `corral config` prints an example",
            EXIT_CONFIG,
        )
    with _listen(settings.server.host, settings.server.port) as listener:
        _run(settings, catalog, listener)


@app.command()
def models(config: ConfigOption = None) -> None:
    """List the models of the configuration and what their files say."""
    from rich.console import Console
    from rich.table import Table

    settings = _load(config, {})
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ID", "File", "Quant", "Architecture"):
        table.add_column(column, overflow="fold")
    for column in ("Parameters", "Size", "Trained context"):
        table.add_column(column, justify="right")
    table.add_column("Preload")
    table.add_column("Fault", overflow="fold", style="red")
    for id, model in settings.models.items():
        table.add_row(id, str(model.path), *_facts(model))
    console = Console()
    # Nothing is cut off where the reader is another program.
    console.width = console.width if console.is_terminal else 400
    console.print(table)


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="A model's id or another of its names, or a file.")],
    config: ConfigOption = None,
    ctx: Annotated[int | None, typer.Option(min=8, help="Tokens of one request.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=256, help="Requests at a time.")] = None,
    kv_quant: Annotated[str | None, typer.Option(help="Type of keys and values: q8_0...")] = None,
    gpu_free: Annotated[
        str | None, typer.Option(help="Free memory of each GPU: 24GiB or 24GiB,8GiB.")
    ] = None,
    ram_free: Annotated[str | None, typer.Option(help="Free RAM: 64GiB.")] = None,
    exact: Annotated[bool, typer.Option(help="Let llama.cpp say what `auto` would take.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it: a PNG or SVG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures, in bytes.")] = False,
) -> None:
    """Show what a model takes of RAM and GPUs, layer by layer, and what `auto` would do."""
    from server.commands import plan as command
    from server.errors import CorralError

    try:
        free = command.free(gpu_free, ram_free)
        order = command.order(ctx, slots, kv_quant)
        is_file = model.endswith(".gguf") and Path(model).is_file()
        catalog = None if is_file else _catalog(_load(config, {}))
        made = command.made(model, catalog, order, free)
        command.run(made, exact, as_json, plot, typer.echo)
    except CorralError as error:
        _fail(error.message, EXIT_FAILED)


@app.command()
def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub, or OWNER/NAME:QUANT.")],
    wanted: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|PATTERN|:QUANT]",
            help="What of it: a file, a pattern as '*Q4_K*gguf' or :Q4_K_M. "
            "Nothing: the best quant for this machine.",
        ),
    ] = None,
    local_dir: Annotated[
        Path | None, typer.Option(help="Folder to put it in, instead of the hub's cache.")
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
) -> None:
    """Fetch a model from the Hugging Face hub; what broke off is continued."""
    from server.commands import pull as command
    from server.errors import CorralError

    try:
        command.run(repo, wanted, local_dir, revision, typer.echo)
    except CorralError as error:
        _fail(error.message, EXIT_FAILED)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", EXIT_STOPPED)


@app.command("config")
def print_config() -> None:
    """Print a config.yaml with every key, its default and what it means."""
    from server import example

    typer.echo(example.annotated(example.DEMO), nl=False)


def _facts(model: "ModelConfig") -> tuple[str, ...]:
    """The cells of one model after its id and path."""
    from pydantic import ByteSize

    from server.errors import ModelLoadError
    from server.gguf import read_header

    preload = "yes" if model.preload else "no"
    try:
        header = read_header(model.path)
    except ModelLoadError as error:
        return ("", "", "", "", "", preload, error.message.removeprefix(f"{model.path}: "))
    size = ByteSize(header.size_bytes).human_readable()
    context = f"{header.n_ctx_train:,}"
    parameters = _short(header.n_params)
    return (header.quant, header.architecture, parameters, size, context, preload, "")


def _short(count: int) -> str:
    """134,515,008 as 134.5M."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return str(count)


def _load(path: Path | None, server: dict[str, object]) -> "Config":
    """The configuration at `path`, or at the default one; ends the process if it is unusable."""
    from server.config import ConfigError
    from server.config_file import load

    if path is None and not DEFAULT_CONFIG.is_file():
        _fail(
            f"no --config given, and there is no {DEFAULT_CONFIG} in {Path.cwd()}; "
            "`corral config` prints one",
            EXIT_CONFIG,
        )
    try:
        return load(path or DEFAULT_CONFIG, server)
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)


def _catalog(config: "Config") -> "Catalog":
    """The models; ends the process if the configuration names one that does not exist."""
    from server.config import ConfigError
    from server.pool.catalog import read_catalog

    try:
        return read_catalog(config)
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"corral: {message}", err=True)
    raise typer.Exit(code)


def _log_to_stderr(level: str) -> None:
    """Our own log lines from `level` on; those of libraries from warnings on."""
    logging.basicConfig(
        level=logging.DEBUG if level == "debug" else logging.WARNING,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    for name in ("corral", "server"):
        logging.getLogger(name).setLevel(level.upper())


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; ends the process if there is none to be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as on_failure:
            listener = on_failure.enter_context(socket.socket(family, kind))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            on_failure.pop_all()
            return listener
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error.strerror}", EXIT_FAILED)


def _run(config: "Config", catalog: "Catalog", listener: socket.socket) -> None:
    """Serve until a signal says to stop."""
    import uvicorn

    from server.app import create_app
    from server.config import ConfigError
    from server.pool.pool import ModelPool

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _announce(config, list(catalog.entries), listener.getsockname()[1])

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            closing = asyncio.create_task(_close_later(pool))
            await super().shutdown(sockets)
            closing.cancel()

    pool = ModelPool(config, catalog=catalog)
    try:
        asgi = create_app(config, pool)
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)
    server = Server(
        uvicorn.Config(
            asgi,
            access_log=False,
            log_config=None,
            # Closing the pool ends what still runs; this is for what does not run on a model.
            timeout_graceful_shutdown=2 * STOP_S,
            lifespan="on",
            backlog=BACKLOG,
        )
    )
    try:
        server.run([listener])
    except KeyboardInterrupt:
        log.info("stopped")
    if not server.started:
        raise typer.Exit(EXIT_FAILED)


async def _close_later(pool: "ModelPool") -> None:
    """Give running requests their time, then end them with an error that their clients see."""
    await asyncio.sleep(STOP_S)
    await pool.close()


def _announce(config: "Config", models: list[str], port: int) -> None:
    """Say where we serve, and how to try it."""
    host = config.server.host
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(
        host, f"[{host}]" if ":" in host else host
    )
    url = f"http://{shown}:{port}/v1"
    shown_models = ", ".join(models[:MOST_NAMED])
    more = f" and {len(models) - MOST_NAMED:,} more" if len(models) > MOST_NAMED else ""
    log.info("corral %s serves %s%s at %s", __version__, shown_models, more, url)
    log.info(
        "try: curl %s/chat/completions -H 'content-type: application/json' "
        '-d \'{"model": "%s", "messages": [{"role": "user", "content": "Hello"}]}\'',
        url,
        config.default_model or models[0],
    )


if __name__ == "__main__":
    app(prog_name="corral")
