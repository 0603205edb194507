"""`corral eval` on the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import EXIT_STOPPED, ConfigOption, fail, load, told

if TYPE_CHECKING:
    from server.commands.evaluate import Place, Printing

MT_BENCH = "mt-bench"

Task = Annotated[
    str,
    typer.Argument(
        help="A task of lm-evaluation-harness, gsm8k_card, gsm8k_small or truthful_small, "
        "several with commas; or mt-bench."
    ),
]
Model = Annotated[str, typer.Option(help="A model's id, or a GGUF file.")]
Url = Annotated[
    str | None,
    typer.Option(
        help="A server that runs. Else the configured address is tried, and if the model is not "
        "there, a server is started for it."
    ),
]
Key = Annotated[str, typer.Option(envvar="OPENAI_API_KEY", show_envvar=True, help="Its key.")]
Chat = Annotated[
    bool, typer.Option("--chat", help="As conversations, through the model's chat template.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Questions of each task, the first ones.")]
Shots = Annotated[int | None, typer.Option(min=0, help="Examples before each question.")]
Concurrent = Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of an answer; the task's own if not given.")
]
Output = Annotated[Path | None, typer.Option(help="Folder for results and all answers.")]
Include = Annotated[Path | None, typer.Option(help="Folder with tasks of your own, as YAML.")]
Data = Annotated[
    Path | None, typer.Option(help="JSON lines in place of the questions of one of our tasks.")
]
Python = Annotated[
    str | None,
    typer.Option(
        envvar="CORRAL_EVAL_PYTHON", show_envvar=True, help="An interpreter that has lm-eval."
    ),
]
Judge = Annotated[str | None, typer.Option(help="mt-bench: the model that rates.")]
JudgeUrl = Annotated[str | None, typer.Option(help="mt-bench: its server; the same if not given.")]
JudgeKey = Annotated[
    str, typer.Option(envvar="JUDGE_API_KEY", show_envvar=True, help="mt-bench: its key.")
]
JudgeSchema = Annotated[
    bool,
    typer.Option(
        "--judge-schema", help="mt-bench: hold the judge to a JSON schema; Corral enforces it."
    ),
]
Questions = Annotated[
    Path | None, typer.Option(help="mt-bench: a file in MT-bench's form instead of ours.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Make the command."""
    app.command("eval", help="Evaluate a model, by lm-evaluation-harness or by a judge.")(_evaluate)


def _evaluate(
    task: Task,
    model: Model,
    url: Url = None,
    api_key: Key = "",
    chat: Chat = False,
    limit: Limit = None,
    num_fewshot: Shots = None,
    concurrent: Concurrent = 4,
    max_tokens: MaxTokens = None,
    output: Output = None,
    include_path: Include = None,
    data: Data = None,
    python: Python = None,
    judge: Judge = None,
    judge_url: JudgeUrl = None,
    judge_key: JudgeKey = "",
    judge_schema: JudgeSchema = False,
    questions: Questions = None,
    config: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    from server.commands import evaluate
    from server.commands.console import err, out
    from server.commands.harness import Order

    place = evaluate.Place(model, url, api_key, concurrent)
    printing = evaluate.Printing(out(), err(), as_json, output)
    theirs = {"--chat": chat, "--num-fewshot": num_fewshot, "--include-path": include_path}
    ours = {"--judge": judge, "--judge-url": judge_url, "--judge-schema": judge_schema}
    is_bench = task == MT_BENCH
    wrong = {**theirs, "--data": data} if is_bench else {**ours, "--questions": questions}
    if misplaced := [
        name for name, value in wrong.items() if value is not None and value is not False
    ]:
        goes = "does not go with" if is_bench else "goes with"
        raise typer.BadParameter(f"{misplaced[0]} {goes} {MT_BENCH}")
    try:
        with told():
            if is_bench:
                judged = (judge, judge_url, judge_key, judge_schema)
                _bench(judged, questions, limit, max_tokens, place, printing, config)
                return
            order = Order(
                tuple(name.strip() for name in task.split(",")),
                chat,
                concurrent,
                limit,
                num_fewshot,
                str(include_path.resolve()) if include_path else None,
                str(data.resolve()) if data else None,
                {"max_gen_toks": max_tokens} if max_tokens else None,
            )
            evaluate.run(
                order,
                python or sys.executable,
                place,
                lambda: load(config, {}, needed=False),
                printing,
            )
    except KeyboardInterrupt:
        fail("stopped", EXIT_STOPPED)


def _bench(
    judged: tuple[str | None, str | None, str, bool],
    questions: Path | None,
    limit: int | None,
    max_tokens: int | None,
    place: "Place",
    printing: "Printing",
    config: Path | None,
) -> None:
    from server.commands import evaluate, mt_bench
    from server.config import ConfigError

    model, url, key, enforced = judged
    if model is None:
        raise ConfigError(
            "mt-bench needs a judge: --judge MODEL, and --judge-url if it is elsewhere"
        )
    evaluate.run_mt_bench(
        mt_bench.read_questions(questions, limit),
        place,
        evaluate.Judging(model, url, key, enforced),
        max_tokens,
        lambda: load(config, {}, needed=False),
        printing,
    )
