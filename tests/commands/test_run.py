"""`corral run` with the real model: what it writes where, and what it refuses."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from server.command_line import app
from server.commands.session import Wishes, beyond_training, only, unescaped
from server.config import Config, EngineConfig, FoundConfig, ModelConfig
from server.ipc import ModelInfo
from server.sampling import SamplingParams
from tests.commands.talking import LIMIT_S, SMALL, command, corral, environment, terminal

PROMPT = "The capital of France is"


def test_only_the_answer_is_written(model_path: Path, tmp_path: Path) -> None:
    card = ("-ngl", "35", "--repeat_penalty", "1.1", "-n", "12", "--top-k", "20", "-s", "1")
    first = corral(tmp_path, "run", model_path, "-p", PROMPT, *SMALL, *card)
    assert (first.returncode, first.stderr) == (0, b"")
    assert b"Paris" in first.stdout
    assert PROMPT.encode() not in first.stdout
    (tmp_path / "prompt.txt").write_text(PROMPT + "\n")
    same = ("--repeat-penalty", "1.1", "--n_predict", "12")
    assert corral(tmp_path, "run", model_path, "-f", "prompt.txt", *SMALL, *same).stdout == (
        first.stdout
    )
    # Of the catalogue, by an alias, with the prompt from a pipe.
    (tmp_path / "config.yaml").write_text(
        f"models: {{demo: {{path: {model_path}, aliases: [d], sampling: {{repeat_penalty: 1.1}}}}}}"
    )
    piped = corral(tmp_path, "run", "d", "-n", "12", *SMALL, text=PROMPT.encode())
    assert piped.stdout == first.stdout


def test_a_full_context_is_told_and_a_limit_is_not(model_path: Path, tmp_path: Path) -> None:
    few = ("-t", "1", "-c", "16", "--temp", "0", "-p", "1 2 3 4 5")
    full = corral(tmp_path, "run", model_path, *few)
    assert full.returncode == 0
    assert b"cut off: the context of 16 tokens is full" in full.stderr
    long = corral(tmp_path, "run", model_path, *few, "-p", "word " * 50)
    assert (long.returncode, long.stdout) == (1, b"")
    assert b"context of 16" in long.stderr


def test_a_card_s_line(model_path: Path, tmp_path: Path) -> None:
    card = "--color -c 32768 --temp 0 --repeat_penalty 1.1 --repeat_last_n 64 --no-mmap -b 64 -n -1"
    ended = corral(
        tmp_path, "run", "-ngl", "35", "-m", model_path, *card.split(), "-p", PROMPT, "-r", "Paris",
        "-t", "1",
    )  # fmt: skip
    assert ended.returncode == 0
    assert b"Paris" not in ended.stdout
    assert b"trained for a context of 8,192 tokens, not of 32,768" in ended.stderr


def test_a_reader_that_leaves_ends_it(model_path: Path, tmp_path: Path) -> None:
    args = command("run", model_path, "-p", "1, 2, 3,", "-t", "1", "-c", "2048", "--temp", "0")
    with subprocess.Popen(
        args, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4)
        process.stdout.close()
        assert process.wait(LIMIT_S) == 1
        assert process.stderr.read() == b""


def test_a_terminal_sees_the_load_and_ctrl_c_ends_it(model_path: Path, tmp_path: Path) -> None:
    with terminal(
        tmp_path, "run", model_path, "-p", "1, 2, 3,", "-t", "1", "-c", "4096", "--temp", "0"
    ) as shown:
        at = shown.until("loading SmolLM2-135M-Instruct.Q4_1")
        shown.until("4, 5, 6", at)
        shown.type("\x03")
        assert shown.end() == 130
    assert "Traceback" not in shown.shown


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("run", "nobody", "-p", "x"), 1, "the model 'nobody' does not exist"),
        (("run", "gone.gguf", "-p", "x"), 1, "there is no file gone.gguf, and the model"),
        (("run", "MODEL", "-p", "x", "-n", "0"), 2, "-n 0: at least 1"),
        (("run", "MODEL", "-p", "x", "-ngl", "-1"), 2, "-ngl -1: "),
        (("run", "MODEL", "-p", "x", "-ngl", "many"), 2, "-ngl many: "),
        (("run", "MODEL", "-p", "x", "-c", "4"), 2, "-c 4: Input should be greater than"),
        (("run", "MODEL", "-p", "x", "--temp", "-1"), 2, "--temp -1.0: "),
        (("run", "MODEL", "-p", "x", "--top-p", "2"), 2, "--top-p 2.0: "),
        (("run", "MODEL", "-p", "x", "--repeat_penalty", "0"), 2, "--repeat-penalty 0.0: "),
        (("run", "MODEL", "-p", "x", "-t", "0"), 2, "-t 0: "),
        (("run", "MODEL", "-p", "x", "-f", "y"), 2, "-p and -f exclude each other"),
        (("run", "MODEL", "-f", "y"), 1, "y: No such file"),
        (("run", "MODEL"), 2, "the prompt is empty"),
        (("run", "-p", "x"), 2, "one model"),
        (("run", "MODEL", "-m", "MODEL", "-p", "x"), 2, "one model"),
        (("run", "-m", "gone.gguf", "-p", "x"), 1, "there is no file gone.gguf, and the model"),
        (("run", "-m", "MODEL", "-p", "x", "-b", "0"), 2, "-b 0: "),
        (("run", "-m", "MODEL", "-p", "x", "--repeat_last_n", "-2"), 2, "--repeat-last-n -2: "),
        (("run", "-m", "MODEL", "-p", "x", "--in-prefix", "y"), 2, "--in-prefix"),
        (("run", "MODEL", "-p", "x", "-sys", "y"), 2, "go with a chat"),
        (("chat", "MODEL", "--chat-template", "nope"), 1, "nope"),
    ],
)
def test_what_cannot_be_is_refused(
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    put = [str(model_path) if arg == "MODEL" else arg for arg in args]
    ended = CliRunner().invoke(app, put)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert message in ended.stderr
    assert isinstance(ended.exception, SystemExit)


def test_a_prompt_that_is_not_utf_8_is_refused(model_path: Path, tmp_path: Path) -> None:
    for name in ("run", "chat"):
        ended = corral(tmp_path, name, model_path, *SMALL, text=b"\xff\xfe")
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert b"not UTF-8" in ended.stderr
        assert b"Traceback" not in ended.stderr


def test_a_file_is_run_as_it_is_configured(model_path: Path) -> None:
    own = ModelConfig(path=model_path, sampling=SamplingParams(top_k=7))
    found = FoundConfig(engine=EngineConfig(n_ctx=99))
    wishes = Wishes({"n_ctx": 0, "n_gpu_layers": "all"}, {"temperature": 0.5, "top_p": None})
    alone, id = only(Config(models={"demo": own}, found=found), str(model_path), wishes)
    assert list(alone.models) == [id] == [model_path.stem]
    model = alone.models[id]
    assert (model.sampling.top_k, model.sampling.temperature, model.sampling.top_p) == (7, 0.5, 1)
    # 0: as much as it was trained for.
    assert (model.engine.n_ctx, model.engine.n_ctx_cap) == (None, 2**31 - 1)
    assert (model.engine.n_gpu_layers, model.engine.n_slots) == ("all", 1)
    alone, id = only(Config(found=found), str(model_path), Wishes({}, {}))
    assert alone.models[id].engine.n_ctx == 99


def test_a_context_beyond_training_is_told_unless_positions_are_scaled() -> None:
    info = ModelInfo(
        n_ctx=32768,
        n_ctx_train=8192,
        n_slots=1,
        n_vocab=0,
        n_params=0,
        size_bytes=0,
        description="",
        template=None,
        bos="",
        eos="",
        special=(),
        kv_layout="split",
        n_gpu_layers=0,
    )
    assert "8,192 tokens, not of 32,768" in beyond_training(EngineConfig(), info)
    for scaled in (EngineConfig(rope_freq_scale=0.25), EngineConfig(rope_scaling="yarn")):
        assert beyond_training(scaled, info) == ""
    for within in (replace(info, n_ctx=8192), replace(info, n_ctx_train=0)):
        assert beyond_training(EngineConfig(), within) == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"a\nb", "a\nb"),
        (r"a\\nb", r"a\nb"),
        (r"\t\r\'\"", "\t\r'\""),
        (r"\d+ \ ", r"\d+ \ "),
        ("end\\", "end\\"),
        ("end\\\\", "end\\"),
        ("\\\\\\n", "\\\n"),
    ],
)
def test_escapes(typed: str, meant: str) -> None:
    assert unescaped(typed) == meant


@given(st.text(alphabet="ab\\\n\t'\""))
def test_what_is_escaped_comes_back(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    assert unescaped(escaped) == text
