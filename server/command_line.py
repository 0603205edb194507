"""The CLI `corral`. What a command needs is imported when it runs."""

import gc
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from server import __version__, evaluations, terminal
from server.cli import EXIT_FAILED, EXIT_STOPPED, ConfigOption, fail, load, told
from server.pool.process import COMMAND
from server.pool.spare import Spare

app = typer.Typer(
    name="corral",
    help="Serve a pool of GGUF models behind one OpenAI-compatible HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; one per core if not given.")
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
    context: typer.Context,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="How much is logged."),
    ] = None,
) -> None:
    """Serve the models of the configuration."""
    given: dict[str, object] = {"host": host, "port": port, "log_level": log_level}
    overrides = {key: value for key, value in given.items() if value is not None}
    with closing(context.find_object(Spare) or Spare(COMMAND)) as spare, ExitStack() as stack:
        # Until all is imported: it stays, and looking for garbage in it was a tenth of the time.
        gc.disable()
        stack.callback(gc.enable)
        stack.enter_context(told())
        from server.commands import serve as command

        if not command.run(lambda: load(config, overrides), spare):
            raise typer.Exit(EXIT_FAILED)


@app.command()
def models(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="REPO|FOLDER",
            help="List the quants of one model instead: what each is good for and needs.",
        ),
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(min=8, help="Context that --card estimates for, in tokens."),
    ] = None,
) -> None:
    """List all models, configured and found: what they take, and whether they are loaded."""
    from server.commands import card as card_command
    from server.commands import models as command
    from server.commands.console import out

    if card is None and ctx is not None:
        raise typer.BadParameter("--ctx goes with --card")
    with told():
        if card is None:
            command.run(load(config, {}), as_json, out())
        else:
            card_command.run(card, load(config, {}, needed=False), ctx, as_json, out())


@app.command()
def template(
    model: Annotated[str, typer.Argument(help="A model of the configuration, or a GGUF file.")],
    chat_template: Annotated[
        str | None, typer.Option(help="As a request would ask for it: a name of templates/.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show which chat template a model gets, and why; the model is not loaded."""
    from server.commands import template as command

    with told():
        if (path := Path(model)).suffix == ".gguf" and path.is_file():
            command.run(path, None, chat_template, typer.echo)
        else:
            command.run_by_name(load(config, {}), model, chat_template, typer.echo)


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

    with told():
        free = command.free(gpu_free, ram_free)
        order = command.order(ctx, slots, kv_quant)
        if (path := Path(model)).suffix == ".gguf" and path.is_file():
            made = command.of_file(path, order, free)
        else:
            made = command.of_name(load(config, {}), model, order, free)
        command.run(made, exact, as_json, plot, typer.echo)


terminal.add_to(app)
evaluations.add_to(app)


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

    with told():
        try:
            command.run(repo, wanted, local_dir, revision, typer.echo)
        except KeyboardInterrupt:
            fail("stopped; the same command goes on from here", EXIT_STOPPED)


@app.command()
def quantize(
    source: Annotated[Path, typer.Argument(help="A GGUF, best one of F16, BF16 or F32.")],
    to: Annotated[str, typer.Option(help="Quants to make, as in Q2_K,Q4_K_M,Q8_0.")],
    out_dir: Annotated[
        Path | None, typer.Option(help="Where they go, instead of beside it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Take a source that is quantized already.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Make quants of a GGUF: NAME.QUANT.gguf."""
    from server.commands import quantize as command
    from server.commands.console import err, out

    options = command.Options(out_dir, force, requantize, threads)
    with told():
        command.run(source, to, options, out(), err())


@app.command()
def bench_quants(
    files: Annotated[list[Path], typer.Argument(help="Quants of one model.")],
    text: Annotated[Path, typer.Option(help="What they are compared on, UTF-8.")],
    ctx: Annotated[int, typer.Option(min=8, help="Tokens in a piece of it.")] = 512,
    pieces: Annotated[int, typer.Option(min=0, help="Pieces that are used; 0: all.")] = 16,
    plot: Annotated[Path | None, typer.Option(help="A picture to draw.")] = None,
    threads: ThreadsOption = None,
) -> None:
    """Compare quants: size, speed, perplexity, divergence from the largest."""
    from server.commands import bench_quants as command
    from server.commands.console import err, out

    options = command.Options(text, ctx, pieces or None, threads, plot)
    with told():
        command.run(files, options, out(), err())


@app.command("rpc-server")
def rpc_server(
    host: Annotated[
        str, typer.Option(help="Address to listen on; whoever can reach it can use it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 50052,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device to lend, may be repeated. None: all GPUs, or the CPU."),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads, where the CPU is lent; 0: one per core.", min=0)
    ] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps weights, to be sent once only.")
    ] = None,
) -> None:
    """Lend this machine's GPUs to a Corral elsewhere, which has it in engine.rpc_servers."""
    from server.commands import rpc_server as command

    try:
        command.run(host, port, threads, cache, tuple(device or ()))
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror}", EXIT_FAILED)


@app.command("config")
def print_config() -> None:
    """Print a config.yaml with every key, its default and what it means."""
    from server import example

    typer.echo(example.annotated(example.DEMO), nl=False)
