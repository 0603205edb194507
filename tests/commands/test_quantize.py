"""`corral quantize` on the real model, and how it refuses."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import gguf
import pytest
from rich.console import Console

from server.commands.failure import CommandError
from server.commands.quantize import Options, parse, run, target
from server.engine import llama
from server.engine.batch import Batch
from server.engine.llama import Context, Log, Model, backend
from server.engine_config import EngineConfig
from server.errors import ModelLoadError
from server.gguf import read_header
from server.quants import NAMES

PROMPT = [504, 3575, 282, 4649, 314]
"""The capital of France is"""


@dataclass(frozen=True)
class Said:
    """What a run printed."""

    out: str
    status: str


def quantize(
    source: Path, quants: str, folder: Path, terminal: bool = False, **given: bool
) -> Said:
    out, status = StringIO(), StringIO()
    run(
        source,
        quants,
        Options(folder, n_threads=1, **given),
        Console(file=out, width=300),
        Console(file=status, width=100, force_terminal=terminal, color_system=None),
    )
    return Said(out.getvalue(), status.getvalue())


class Made(NamedTuple):
    """Quants of the demo model."""

    folder: Path
    said: Said


@pytest.fixture(scope="module")
def made(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made") / "new"
    return Made(folder, quantize(model_path, "q8_0, Q2_K,Q8_0", folder, True, requantize=True))


def test_quants_are_made_under_their_names(made: Made) -> None:
    files = {path.name: read_header(path) for path in made.folder.iterdir()}
    assert {name: header.quant for name, header in files.items()} == {
        "SmolLM2-135M-Instruct.Q8_0.gguf": "Q8_0",
        "SmolLM2-135M-Instruct.Q2_K.gguf": "Q2_K",
    }


def test_what_fell_back_is_told(made: Made) -> None:
    text = " ".join(made.said.out.split())
    assert re.search(r"Q8_0\.gguf 138\.1MiB 8\.51 /", text)
    assert "180 of 272 tensors: q2_K to q4_0 for 120 with rows of 576, q3_K" in text


def test_that_the_source_is_a_quant_is_told(made: Made) -> None:
    assert "Q4_1.gguf is quantized already (q4_1)" in made.said.status


def test_a_terminal_sees_how_far_it_is(made: Made) -> None:
    assert re.search(r"Q8_0\.gguf .*(1\d\d\.\d)/\1 MiB", made.said.status)


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    yield llama.backend_init()
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


def continuation(path: Path, log: Log, n: int) -> list[int]:
    """The `n` most likely tokens after the prompt."""
    config = EngineConfig(n_ctx=64, n_slots=1, n_batch=32, n_threads=1, n_gpu_layers=0)
    tokens = list(PROMPT)
    with (
        Model(str(path), config, 0, log, lambda _: None) as model,
        Context(model, config, 64, None) as context,
    ):
        batch = Batch(32)
        while len(tokens) < len(PROMPT) + n:
            batch.clear()
            at = context.cells_of(0)
            batch.add(0, tokens[at:], at, n_rows=1)
            context.forward(batch)
            tokens.append(int(context.logits(1)[0].argmax()))
    return tokens[len(PROMPT) :]


def test_what_was_made_generates(made: Made, model_path: Path, log: Log) -> None:
    folder = made.folder
    expected = continuation(model_path, log, 3)
    # Further on a near tie may fall the other way.
    assert continuation(folder / "SmolLM2-135M-Instruct.Q8_0.gguf", log, 3) == expected
    assert len(set(continuation(folder / "SmolLM2-135M-Instruct.Q2_K.gguf", log, 8))) > 2


def test_a_file_that_exists_is_replaced_by_force_only(made: Made, tmp_path: Path) -> None:
    source = made.folder / "SmolLM2-135M-Instruct.Q8_0.gguf"
    path = tmp_path / "SmolLM2-135M-Instruct.Q4_0.gguf"
    path.write_text("old")
    with pytest.raises(CommandError, match=r"Q4_0.gguf exists; --force replaces it"):
        quantize(source, "Q4_0", tmp_path, requantize=True)
    assert path.read_text() == "old"
    quantize(source, "Q4_0", tmp_path, requantize=True, force=True)
    assert read_header(path).quant == "Q4_0"
    assert list(tmp_path.iterdir()) == [path]


def test_the_source_is_never_replaced(model_path: Path, tmp_path: Path) -> None:
    source = tmp_path / model_path.name
    source.symlink_to(model_path)
    with pytest.raises(CommandError, match="Q4_1 would overwrite the source"):
        quantize(source, "Q4_1", tmp_path, requantize=True, force=True)


def test_a_quant_is_no_source_unless_asked(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"quantized already \(q4_1\).*--requantize makes it"):
        quantize(model_path, "Q8_0", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_quant_that_needs_a_matrix_is_refused(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"IQ2_XS of .* needs an importance matrix"):
        quantize(model_path, "Q8_0,IQ2_XS", tmp_path, requantize=True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_told_with_the_numbers(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 200_000_000

    def usage(_: object) -> type[Usage]:
        return Usage

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(CommandError) as caught:
        quantize(model_path, "Q8_0,F16", tmp_path, requantize=True)
    assert "2 files of 39" in str(caught.value)
    assert "of 200,000,000 bytes" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_told(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="file/in: Not a directory"):
        quantize(model_path, "Q8_0", tmp_path / "file" / "in")


def test_a_failure_leaves_nothing(model_path: Path, tmp_path: Path) -> None:
    """A folder stands where the part is to be written."""
    blocked = tmp_path / "SmolLM2-135M-Instruct.Q8_0.gguf.part"
    blocked.mkdir()
    with pytest.raises(CommandError, match="cannot make Q8_0 of"):
        quantize(model_path, "Q8_0", tmp_path, requantize=True)
    assert list(tmp_path.iterdir()) == [blocked]


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("hello")
    with pytest.raises(ModelLoadError, match="not a GGUF file"):
        quantize(path, "Q8_0", tmp_path)


def test_a_file_without_weights_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    writer = gguf.GGUFWriter(path, "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CommandError, match=r"empty\.gguf holds no weights"):
        quantize(path, "Q8_0", tmp_path)


def test_quants_are_named_in_any_way() -> None:
    assert parse("q4_k, Q4_K_M,iq4_nl,") == ["Q4_K_M", "IQ4_NL"]
    for bad in ("Q9", "Q4_K_M,,Q4_K_X"):
        with pytest.raises(CommandError, match=r"unknown quant Q\w+; known are F32, BF16, "):
            parse(bad)
    with pytest.raises(CommandError, match="no quants are named; known are"):
        parse(" , ")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("bagel-dpo-8x7b-v0.2.Q8_0.gguf", "bagel-dpo-8x7b-v0.2.Q4_K_M.gguf"),
        ("bagel-dpo-8x7b-v0.2.gguf", "bagel-dpo-8x7b-v0.2.Q4_K_M.gguf"),
        ("Llama-3-8B-f16.gguf", "Llama-3-8B.Q4_K_M.gguf"),
        ("Llama-3-8B.fp16.gguf", "Llama-3-8B.Q4_K_M.gguf"),
        ("Qwen-BF16-00001-of-00004.gguf", "Qwen.Q4_K_M.gguf"),
        ("model.bin", "model.bin.Q4_K_M.gguf"),
    ],
)
def test_names(source: str, name: str) -> None:
    assert target(Path("/models", source), "Q4_K_M", Path("/out")) == Path("/out", name)


@pytest.mark.parametrize("quant", NAMES)
def test_a_quant_of_a_quant_has_one_quant_in_its_name(quant: str) -> None:
    first = target(Path("a.gguf"), quant, Path("x"))
    assert target(first, "Q8_0", Path("x")) == Path("x/a.Q8_0.gguf")
