"""`corral chat` and `corral run`: a model in this terminal, with options as llama.cpp spells them.

Underscores in them are as good as hyphens, as in llama.cpp.
"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import EXIT_STOPPED, load, told

Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A model's id or another of its names, or a GGUF file."),
]
ModelOption = Annotated[
    str | None, typer.Option("-m", "--model", help="The same, as llama.cpp has it.")
]
Prompt = Annotated[
    str | None, typer.Option("-p", "--prompt", help="The prompt; of a chat, the first message.")
]
PromptFile = Annotated[Path | None, typer.Option("-f", "--file", help="A file with the prompt.")]
Escape = Annotated[
    bool, typer.Option("-e/--no-escape", "--escape", help=r"Read \n, \t and the like in -p.")
]
System = Annotated[str | None, typer.Option("-sys", "--system-prompt", help="The system prompt.")]
Interactive = Annotated[
    bool,
    typer.Option(
        "-i",
        "-ins",
        "-cnv",
        "--interactive",
        "--instruct",
        "--conversation",
        help="Chat, as `corral chat` does.",
    ),
]
Template = Annotated[
    str | None, typer.Option("--chat-template", help="A name of templates/, or a .jinja file.")
]
GpuLayers = Annotated[
    str | None,
    typer.Option(
        "-ngl", "--gpu-layers", "--n-gpu-layers", metavar="N|all|auto", help="Layers on the GPU."
    ),
]
Color = Annotated[bool, typer.Option("--color", help="On a terminal, show what you say in colour.")]
ReversePrompt = Annotated[
    list[str] | None,
    typer.Option("-r", "--reverse-prompt", help="Ends an answer; may be repeated."),
]
CtxSize = Annotated[
    int | None,
    typer.Option("-c", "--ctx-size", help="Context in tokens; 0: as the model was trained."),
]
Threads = Annotated[int | None, typer.Option("-t", "--threads", help="CPU threads.")]
Predict = Annotated[
    int,
    typer.Option(
        "-n", "--predict", "--n-predict", help="Most tokens of an answer; -1: until it ends."
    ),
]
Temp = Annotated[float | None, typer.Option("--temp", "--temperature", help="Randomness.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Keep the k best tokens; 0: all.")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Keep the best of this joint mass.")]
MinP = Annotated[
    float | None, typer.Option("--min-p", help="Drop tokens below this share of the best one's.")
]
RepeatPenalty = Annotated[
    float | None, typer.Option("--repeat-penalty", help="Divides repeated tokens' logits.")
]
RepeatLastN = Annotated[
    int | None, typer.Option("--repeat-last-n", help="Tokens it looks at; -1: all.")
]
Batch = Annotated[
    int | None, typer.Option("-b", "--batch-size", help="Tokens of a prompt at a time.")
]
Mlock = Annotated[bool, typer.Option("--mlock", help="Keep the weights from being swapped out.")]
NoMmap = Annotated[bool, typer.Option("--no-mmap", help="Read the file instead of mapping it.")]
Seed = Annotated[int | None, typer.Option("-s", "--seed", help="Same seed, same answer; -1: any.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The YAML file; config.yaml, if there is one.")
]


def _hyphened(name: str) -> str:
    return name.replace("_", "-")


SPELLING: dict[object, object] = {"token_normalize_func": _hyphened}
"""Settings of both commands."""


def add_to(app: typer.Typer) -> None:
    """Make both commands: one function, which knows by which name it was called."""
    app.command(
        "chat",
        context_settings=SPELLING,
        help="Chat with a model in this terminal. Ctrl-C ends an answer, Ctrl-D the chat.",
    )(_talk)
    app.command(
        "run",
        context_settings=SPELLING,
        help="Have a model continue a text, as it stands: no chat template. Only the answer is "
        "written to standard output.",
    )(_talk)


def _talk(
    called: typer.Context,
    model: Model = None,
    model_option: ModelOption = None,
    prompt: Prompt = None,
    file: PromptFile = None,
    escape: Escape = True,
    interactive: Interactive = False,
    system: System = None,
    chat_template: Template = None,
    color: Color = False,
    reverse_prompt: ReversePrompt = None,
    gpu_layers: GpuLayers = None,
    ctx_size: CtxSize = None,
    threads: Threads = None,
    predict: Predict = -1,
    temp: Temp = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repeat_penalty: RepeatPenalty = None,
    repeat_last_n: RepeatLastN = None,
    batch_size: Batch = None,
    mlock: Mlock = False,
    no_mmap: NoMmap = False,
    seed: Seed = None,
    config: ConfigFile = None,
) -> None:
    from server.commands import chat, run
    from server.commands.session import Manner, Wishes, n_tokens, opened, read_prompt

    if (name := _one(model, model_option)) is None:
        raise typer.BadParameter("one model: MODEL or -m MODEL")
    chats = interactive or called.info_name == "chat"
    if not chats and (system is not None or chat_template is not None):
        raise typer.BadParameter("-sys and --chat-template go with a chat: -i")
    engine = {
        "n_gpu_layers": gpu_layers,
        "n_ctx": ctx_size,
        "n_threads": threads,
        "n_batch": batch_size,
        "mlock": mlock or None,
        "mmap": False if no_mmap else None,
    }
    sampling = {
        "temperature": temp,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repeat_penalty": repeat_penalty,
        "repeat_last_n": repeat_last_n,
        "seed": None if seed == -1 else seed,
    }
    try:
        with told():
            text = read_prompt(prompt, file, escape)
            manner = Manner(n_tokens(predict), _stops(reverse_prompt or [], escape), color)
            wishes = Wishes(engine, sampling, chat_template)
            whole = None if chats else run.prompt(text)
            with opened(load(config, {}, needed=False), name, wishes) as session:
                if whole is None:
                    chat.run(session, text, system, manner)
                else:
                    run.run(session, whole, manner)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_STOPPED) from None


def _one(model: str | None, option: str | None) -> str | None:
    """The model, unless it is given twice or not at all."""
    return None if model is not None and option is not None else model or option


def _stops(texts: list[str], escape: bool) -> tuple[str, ...]:
    from server.commands.session import legible, unescaped

    read = (legible(text, "-r") for text in texts if text)
    return tuple(unescaped(text) if escape else text for text in read)
