"""llama.cpp through our objects, on the real model: what it refuses, computes and is told."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.engine import llama
from server.engine.batch import Batch
from server.engine.llama import Context, Devices, Log, Logits, Model, NoRoom, backend, pages
from server.engine.llama.context import KV_TYPES
from server.engine.llama.model import Settings
from server.engine.llama.overrides import EXPERTS
from server.engine_config import EngineConfig
from server.errors import EngineError, ModelLoadError
from server.threads import cores

# One thread: several would spin at llama.cpp's barriers wherever the machine is busy.
SMALL = EngineConfig(
    n_ctx=64, n_slots=4, n_batch=32, n_ubatch=32, n_threads=1, flash_attn="off", n_gpu_layers=0
)
PROMPT = [504, 2365, 282, 4649, 314, 253, 1343, 28, 284, 260]


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    yield llama.backend_init()
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture(scope="module")
def model(model_path: Path, log: Log) -> Iterator[Model]:
    with Model(str(model_path), SMALL, 0, log, lambda _: None) as model:
        yield model


@pytest.fixture(params=[None, 256], ids=["split", "unified"])
def context(request: pytest.FixtureRequest, model: Model) -> Iterator[Context]:
    with Context(model, SMALL, 64, request.param) as context:
        yield context


@pytest.fixture
def unified(model: Model) -> Iterator[Context]:
    """256 cells for 4 slots of up to 200 tokens."""
    with Context(model, SMALL, 200, 256) as context:
        yield context


@pytest.fixture(scope="module")
def expected(model: Model) -> Logits:
    """The logits after the prompt, computed in one piece by a context of its own."""
    with Context(model, SMALL, 64, None) as context:
        return forward(context, 0, PROMPT)


def forward(context: Context, slot: int, tokens: list[int]) -> Logits:
    """Append to a slot; the logits of the last token, [n_vocab]."""
    batch = Batch(context.n_batch)
    batch.add(slot, tokens, context.cells_of(slot), n_rows=1)
    context.forward(batch)
    return context.logits(1)[0].copy()


def cells(context: Context) -> list[int]:
    return [context.cells_of(slot) for slot in range(context.n_slots)]


def open_file(path: Path, log: Log) -> None:
    Model(str(path), SMALL, 0, log, lambda _: None).close()


# Files that are no models.


def cut(n: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:n]


SPOILT: list[tuple[Callable[[bytes], bytes], str]] = [
    (cut(0), "failed to read magic"),
    (lambda _: b"not a model at all\n" * 50, "invalid magic characters: 'not '"),
    (cut(3), "failed to read magic"),
    (cut(4), "failed to read header"),
    (cut(20), "failed to read header"),
    (cut(1000), "exceeds remaining file size"),
    (cut(100_000), "failed to read key-value pairs"),
    (cut(2_000_000), "is not within the file bounds, model is corrupted or incomplete"),
    (cut(-1), "is not within the file bounds, model is corrupted or incomplete"),
    (lambda data: data[:4] + b"\xff" * 4 + data[8:3_000_000], "version 4294967295"),
    (lambda data: data[:16] + b"\xff" * 8 + data[24:3_000_000], "number of key value pairs"),
    (lambda data: data[:200] + b"\xff" * 64 + data[264:3_000_000], "invalid GGUF type"),
    # No tensors: the metadata and the vocabulary alone.
    (lambda data: data[:8] + bytes(8) + data[16:2_000_000], "'token_embd.weight' not found"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILT)
def test_spoilt_files(
    spoil: Callable[[bytes], bytes], reason: str, model_path: Path, log: Log, tmp_path: Path
) -> None:
    path = tmp_path / "spoilt é.gguf"
    path.write_bytes(spoil(model_path.read_bytes()))
    with pytest.raises(ModelLoadError) as caught:
        open_file(path, log)
    assert reason in caught.value.message
    assert caught.value.message.startswith(f"cannot load {path}: ")


def test_a_file_that_is_not_there(log: Log, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="No such file or directory"):
        open_file(tmp_path / "nothing.gguf", log)
    with pytest.raises(ModelLoadError, match="cannot load"):
        open_file(tmp_path, log)


def test_each_failure_has_its_own_reason(log: Log, tmp_path: Path) -> None:
    """What an earlier one logged is not repeated."""
    path = tmp_path / "empty.gguf"
    path.write_bytes(b"")
    with pytest.raises(ModelLoadError):
        open_file(tmp_path / "nothing.gguf", log)
    with pytest.raises(ModelLoadError) as caught:
        open_file(path, log)
    assert "No such file" not in caught.value.message
    assert log.reason() == "llama.cpp gave no reason"


def test_a_vocabulary_without_weights_is_closed(
    model_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[Any] = []
    free = backend.C.llama_model_free

    def spy(pointer: Any) -> None:
        freed.append(pointer)
        free(pointer)

    def nothing(_: Any) -> int:
        return 0

    monkeypatch.setattr(backend.C, "llama_model_size", nothing)
    monkeypatch.setattr(backend.C, "llama_model_free", spy)
    with pytest.raises(ModelLoadError, match="a vocabulary but no weights") as caught:
        open_file(model_path, log)
    assert str(model_path) in caught.value.message
    assert len(freed) == 1


# What a model says of itself.


def test_the_model(model: Model, model_path: Path) -> None:
    assert (model.n_layer, model.n_ctx_train) == (30, 8192)
    assert model.n_params > 130e6
    assert 0.9 < model.size_bytes / model_path.stat().st_size <= 1
    assert model.description.startswith("llama ") and model.description.endswith("Q4_1")
    assert model.template is not None and "<|im_start|>" in model.template
    # 3 heads of 64 for K and as many for V.
    assert model.bytes_per_cell(EngineConfig()) == 30 * 3 * 64 * 4
    assert model.bytes_per_cell(EngineConfig(kv_quant="f32", kv_quant_v="f16")) == 30 * 3 * 64 * 6


def test_progress_goes_up_to_one(model_path: Path, log: Log) -> None:
    told: list[float] = []
    Model(str(model_path), SMALL, 0, log, told.append).close()
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_sizes_only_reads_no_weights(model: Model, model_path: Path, log: Log) -> None:
    with Model(str(model_path), SMALL, 0, log, lambda _: None, sizes_only=True) as sizes:
        assert sizes.size_bytes == model.size_bytes
        assert sizes.n_layer == model.n_layer
        assert sizes.bytes_per_cell(EngineConfig()) == model.bytes_per_cell(EngineConfig())
    sizes.close()
    assert sizes.pointer is None


def test_the_vocabulary(model: Model) -> None:
    raw = model.vocabulary
    text = "Hello  wörld\0 <|im_end|>"
    plain = raw.tokenize(text, add_special=False, parse_special=False)
    assert b"".join(raw.piece(t) for t in plain.tolist()) == text.encode()
    parsed = raw.tokenize(text, add_special=False, parse_special=True).tolist()
    assert raw.is_control(parsed[-1]) and raw.is_end(parsed[-1])
    assert raw.piece(parsed[-1]) == b""
    assert raw.text(parsed[-1]) == "<|im_end|>"
    assert raw.text(-1) == ""
    assert len(raw.tokenize("", add_special=False, parse_special=False)) == 0


def test_long_pieces_are_whole(model: Model) -> None:
    pieces = {t: model.vocabulary.piece(t) for t in range(model.vocabulary.n_tokens)}
    longest = max(pieces, key=lambda t: len(pieces[t]))
    raw = model.vocabulary
    text = pieces[longest].decode()
    assert longest in raw.tokenize(text, add_special=False, parse_special=False)


def test_a_piece_longer_than_the_buffer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"x" * 100

    def piece(_vocab: Any, _token: int, buffer: Any, size: int, _l: int, _special: bool) -> int:
        if size < len(long):
            return -len(long)
        buffer[: len(long)] = long
        return len(long)

    monkeypatch.setattr(backend.C, "llama_token_to_piece", piece)
    assert model.vocabulary.piece(5) == long


def test_a_text_that_cannot_be_tokenized(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        return -(2**31)

    monkeypatch.setattr(backend.C, "llama_tokenize", refuse)
    with pytest.raises(EngineError, match="cannot tokenize 3 bytes"):
        model.vocabulary.tokenize("abc", add_special=True, parse_special=True)


# Cells and forwards.


def close_to(expected: Logits) -> Any:
    return pytest.approx(expected, abs=0.05)


def test_layouts_agree(context: Context, expected: Logits) -> None:
    assert forward(context, 2, PROMPT) == close_to(expected)
    assert cells(context) == [0, 0, len(PROMPT), 0]


def test_pieces_agree(context: Context, expected: Logits) -> None:
    forward(context, 0, PROMPT[:3])
    forward(context, 0, PROMPT[3:4])
    assert forward(context, 0, PROMPT[4:]) == close_to(expected)


def test_rows_come_in_the_order_of_the_batch(context: Context, expected: Logits) -> None:
    batch = Batch(context.n_batch)
    batch.add(0, PROMPT[:2], 0, n_rows=1)
    batch.add(1, PROMPT, 0, n_rows=1)
    batch.add(2, PROMPT[:5], 0, n_rows=0)
    batch.add(3, PROMPT[:3], 0, n_rows=1)
    context.forward(batch)
    rows = context.logits(batch.n_rows).copy()
    assert rows.shape == (3, context.n_vocab)
    assert rows[1] == close_to(expected)
    for row, n in ((rows[0], 2), (rows[2], 3)):
        context.trim(1, 0)
        assert row == close_to(forward(context, 1, PROMPT[:n]))
    assert cells(context) == [2, 3, 5, 3]


def test_a_batch_is_reused_and_another_is_bound(context: Context, expected: Logits) -> None:
    first, second = Batch(context.n_batch), Batch(16)
    first.add(0, PROMPT[:6], 0, n_rows=1)
    context.forward(first)
    second.add(1, PROMPT, 0, n_rows=1)
    context.forward(second)
    assert context.logits(1)[0] == close_to(expected)
    first.clear()
    first.add(0, PROMPT[6:], 6, n_rows=1)
    context.forward(first)
    assert context.logits(1)[0] == close_to(expected)


def test_saved_cells_serve_another_slot(context: Context, expected: Logits) -> None:
    forward(context, 1, PROMPT[:-1])
    state = context.save(1)
    context.restore(3, state)
    assert cells(context) == [0, len(PROMPT) - 1, 0, len(PROMPT) - 1]
    assert forward(context, 3, PROMPT[-1:]) == close_to(expected)
    assert forward(context, 1, PROMPT[-1:]) == close_to(expected)


def test_a_trimmed_slot_goes_on(context: Context, expected: Logits) -> None:
    forward(context, 0, [*PROMPT[:6], 99, 98, 97])
    assert context.trim(0, 6)
    assert context.cells_of(0) == 6
    assert forward(context, 0, PROMPT[6:]) == close_to(expected)
    assert context.trim(0, 0)
    assert cells(context) == [0, 0, 0, 0]


def test_copied_cells_are_shared(unified: Context, expected: Logits) -> None:
    forward(unified, 0, [*PROMPT[:8], 99])
    unified.copy(0, 2, 8)
    unified.copy(0, 3, 8)
    assert cells(unified) == [9, 0, 8, 8]
    assert unified.trim(0, 0)
    assert forward(unified, 2, PROMPT[8:]) == close_to(expected)
    assert forward(unified, 3, PROMPT[8:]) == close_to(expected)


def fill(context: Context) -> None:
    """Leave 6 of 256 cells free."""
    for slot, n in ((0, 190), (1, 60)):
        for at in range(0, n, 30):
            forward(context, slot, ([7, 8, 9] * 10)[: min(30, n - at)])


def test_no_room_changes_nothing(unified: Context) -> None:
    fill(unified)
    before = cells(unified)
    with pytest.raises(NoRoom, match="7 tokens"):
        forward(unified, 2, [1] * 7)
    assert cells(unified) == before == [190, 60, 0, 0]
    state = unified.save(1)
    with pytest.raises(NoRoom, match="slot 2"):
        unified.restore(2, state)
    assert cells(unified) == before
    forward(unified, 2, [1] * 6)
    unified.trim(2, 0)
    # The neighbours' cells are as they were.
    after = forward(unified, 1, [5])
    with_room = unified.save(1)
    unified.trim(0, 0)
    unified.restore(3, with_room)
    unified.trim(3, 60)
    assert forward(unified, 3, [5]) == close_to(after)


@pytest.mark.parametrize("state", [b"", b"garbage garbage", None])
def test_spoilt_states_are_refused(context: Context, state: bytes | None) -> None:
    forward(context, 0, PROMPT)
    blob = context.save(0)[:100] if state is None else np.frombuffer(state, np.uint8)
    with pytest.raises(NoRoom):
        context.restore(2, blob)
    assert cells(context) == [len(PROMPT), 0, 0, 0]


def test_a_state_that_is_too_short(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_less(*_: Any) -> int:
        return 3

    monkeypatch.setattr(backend.C, "llama_state_seq_get_data", give_less)
    with pytest.raises(EngineError, match=r"slot 1 gave 3 of \d+ bytes"):
        context.save(1)


@pytest.mark.parametrize(
    ("tokens", "pos", "reason"),
    [
        ([10**6], 0, "invalid token"),
        ([-5], 0, "invalid token"),
        ([1], 5, "inconsistent sequence positions"),
    ],
)
def test_what_llama_cpp_refuses(
    context: Context, tokens: list[int], pos: int, reason: str, expected: Logits
) -> None:
    forward(context, 1, PROMPT[:1])
    batch = Batch(context.n_batch)
    batch.add(1, tokens, 1 + pos, n_rows=1)
    with pytest.raises(EngineError, match=reason):
        context.forward(batch)
    assert cells(context) == [0, 1, 0, 0]
    assert forward(context, 1, PROMPT[1:]) == close_to(expected)


def test_a_slot_out_of_range_is_refused_by_the_batch(context: Context) -> None:
    batch = Batch(context.n_batch)
    batch.add(4, [1], 0, n_rows=1)
    with pytest.raises(EngineError, match="seq_id"):
        context.forward(batch)


def test_what_would_abort_is_caught_before(context: Context) -> None:
    for slot in (-1, 4):
        with pytest.raises(AssertionError):
            context.trim(slot, 0)
        with pytest.raises(AssertionError):
            context.copy(slot, 0, 1)
        with pytest.raises(AssertionError):
            context.copy(0, slot, 1)
    with pytest.raises(AssertionError):
        context.forward(Batch(4))
    too_large = Batch(context.n_batch + 1)
    too_large.add(0, [1] * (context.n_batch + 1), 0, n_rows=1)
    with pytest.raises(AssertionError):
        context.forward(too_large)


def test_sizes_of_contexts(model: Model) -> None:
    with Context(model, SMALL, 64, None) as split:
        assert (split.n_ctx, split.n_slots, split.n_batch) == (64, 4, 32)
        assert split.n_cells >= 4 * 64
    with Context(model, SMALL, 64, 300) as unified:
        assert (unified.n_ctx, unified.n_slots) == (64, 4)
        assert unified.n_cells >= 300
    unified.close()
    assert unified.pointer is None


def test_it_settles_once(model: Model) -> None:
    """Where values lie apart, and only if there are enough of them."""
    large = SMALL.model_copy(update={"n_slots": 1})
    with Context(model, large, 2048, None) as context:
        assert (context.n_ctx, context.n_cells) == (2048, 2304)
        n_turns = 0
        while context.settle():
            n_turns += 1
        size = context.n_cells * model.bytes_per_cell(large)
        assert size < (n_turns + 1) * pages.HUGE_PAGE <= size + pages.MORE + pages.HUGE_PAGE
        assert not context.settle()
    with Context(model, large.model_copy(update={"flash_attn": "on"}), 2048, None) as context:
        assert not context.settle()
    with Context(model, large, 64, None) as context:
        assert not context.settle()


def test_a_context_that_llama_cpp_does_not_make(model: Model) -> None:
    config = SMALL.model_copy(update={"kv_quant_v": "q8_0"})
    with pytest.raises(
        ModelLoadError, match=r"no context of 1024 cells for 4 slots: quantized V cache"
    ):
        Context(model, config, 64, None)


# What reaches llama.cpp.


def model_params(config: EngineConfig, log: Log, sizes_only: bool = False, n: int = 0) -> Any:
    """The struct that llama_model_load_from_file gets, and the two first shares of GPUs."""
    seen: list[Any] = []

    def spy(path: bytes, params: Any) -> None:
        shares = [params.tensor_split[i] for i in range(2)] if params.tensor_split else None
        seen.append((path, params, shares))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.C, "llama_model_load_from_file", spy)
        patch.setattr(backend.C, "llama_max_devices", lambda: 16)
        with pytest.raises(ModelLoadError, match=r"cannot load dir/é\.gguf: "):
            Model("dir/é.gguf", config, n, log, lambda _: None, sizes_only)
    path, params, shares = seen[0]
    assert path == "dir/é.gguf".encode()
    return params, shares


NONE, MMAP, MLOCK, MMAP_MLOCK = 0, 1, 2, 3


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        ({}, "load_mode", MMAP),
        ({"mmap": False}, "load_mode", NONE),
        ({"mlock": True}, "load_mode", MMAP_MLOCK),
        ({"mmap": False, "mlock": True}, "load_mode", MLOCK),
        ({"main_gpu": 3}, "main_gpu", 3),
        ({"split_mode": "none"}, "split_mode", backend.C.LLAMA_SPLIT_MODE_NONE),
        ({}, "split_mode", backend.C.LLAMA_SPLIT_MODE_LAYER),
        ({"split_mode": "row"}, "split_mode", backend.C.LLAMA_SPLIT_MODE_ROW),
        ({}, "use_extra_bufts", True),
        ({"use_extra_bufts": False}, "use_extra_bufts", False),
        ({}, "no_alloc", False),
        ({}, "vocab_only", False),
    ],
)
def test_model_settings_reach_llama_cpp(
    settings: dict[str, Any], field: str, value: object, log: Log
) -> None:
    params, _ = model_params(EngineConfig(**settings), log)
    assert getattr(params, field) == value


def test_load_modes_are_llama_cpps() -> None:
    assert (NONE, MMAP) == (backend.C.LLAMA_LOAD_MODE_NONE, backend.C.LLAMA_LOAD_MODE_MMAP)
    assert MLOCK == backend.C.LLAMA_LOAD_MODE_MLOCK
    assert MMAP_MLOCK == backend.C.LLAMA_LOAD_MODE_MMAP_MLOCK


def test_layers_and_shares_reach_llama_cpp(log: Log) -> None:
    params, shares = model_params(EngineConfig(tensor_split=(3.0, 1.0)), log, n=17)
    assert params.n_gpu_layers == 17
    assert shares == [3.0, 1.0]
    _, shares = model_params(EngineConfig(), log)
    assert shares is None


def test_devices_and_overrides_reach_llama_cpp(log: Log) -> None:
    def pointers(field: Any) -> Any:
        return ctypes.cast(field, ctypes.POINTER(ctypes.c_void_p))

    config = EngineConfig(devices=("none",), override_tensors=("ffn_up=CPU",), n_cpu_moe="all")
    with Devices(config) as devices:
        cpu = devices.buffer_types["CPU"]
        settings = Settings(config, devices, lambda _: None)
    assert pointers(settings.params.devices)[0] is None
    rows = pointers(settings.params.tensor_buft_overrides)
    assert [ctypes.string_at(rows[0]), ctypes.string_at(rows[2])] == [b"ffn_up", EXPERTS.encode()]
    assert [rows[1], rows[3], rows[4]] == [cpu, cpu, None]
    params, _ = model_params(EngineConfig(), log)
    assert params.tensor_buft_overrides is None


def test_sizes_only_allocates_nothing(log: Log) -> None:
    params, _ = model_params(EngineConfig(mlock=True), log, sizes_only=True)
    assert params.no_alloc
    assert params.load_mode == NONE


def test_the_number_of_threads_changes(context: Context) -> None:
    context.use_threads(2)
    assert backend.C.llama_n_threads(context.pointer) == 2
    assert backend.C.llama_n_threads_batch(context.pointer) == 2


CONTEXT_SETTINGS: list[tuple[dict[str, Any], str, object]] = [
    ({"n_slots": 7}, "n_seq_max", 7),
    ({"n_batch": 100}, "n_batch", 100),
    ({"n_batch": 1000, "n_ubatch": 99}, "n_ubatch", 99),
    ({"n_batch": 8, "n_ubatch": 512}, "n_ubatch", 8),
    ({"n_threads": 3}, "n_threads", 3),
    ({"n_threads": 3}, "n_threads_batch", 3),
    ({}, "n_threads", cores()),
    ({"flash_attn": "auto"}, "flash_attn_type", backend.C.LLAMA_FLASH_ATTN_TYPE_AUTO),
    ({"flash_attn": "on"}, "flash_attn_type", backend.C.LLAMA_FLASH_ATTN_TYPE_ENABLED),
    ({"flash_attn": "off"}, "flash_attn_type", backend.C.LLAMA_FLASH_ATTN_TYPE_DISABLED),
    ({"kv_quant": "q8_0"}, "type_k", backend.C.GGML_TYPE_Q8_0),
    ({"kv_quant": "q8_0"}, "type_v", backend.C.GGML_TYPE_Q8_0),
    ({"kv_quant": "q8_0", "kv_quant_v": "f16"}, "type_k", backend.C.GGML_TYPE_Q8_0),
    ({"kv_quant": "q8_0", "kv_quant_v": "f16"}, "type_v", backend.C.GGML_TYPE_F16),
    ({"kv_offload": False}, "offload_kqv", False),
    ({}, "offload_kqv", True),
    ({"op_offload": False}, "op_offload", False),
    ({}, "op_offload", True),
    ({}, "rope_scaling_type", backend.C.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED),
    ({"rope_scaling": "none"}, "rope_scaling_type", backend.C.LLAMA_ROPE_SCALING_TYPE_NONE),
    ({"rope_scaling": "linear"}, "rope_scaling_type", backend.C.LLAMA_ROPE_SCALING_TYPE_LINEAR),
    ({"rope_scaling": "yarn"}, "rope_scaling_type", backend.C.LLAMA_ROPE_SCALING_TYPE_YARN),
    ({"rope_scaling": "longrope"}, "rope_scaling_type", backend.C.LLAMA_ROPE_SCALING_TYPE_LONGROPE),
    ({"rope_freq_base": 5e5}, "rope_freq_base", 5e5),
    ({"rope_freq_scale": 0.5}, "rope_freq_scale", 0.5),
    ({"yarn_ext_factor": 0.25}, "yarn_ext_factor", 0.25),
    ({"yarn_attn_factor": 1.5}, "yarn_attn_factor", 1.5),
    ({"yarn_beta_fast": 16.0}, "yarn_beta_fast", 16.0),
    ({"yarn_beta_slow": 2.0}, "yarn_beta_slow", 2.0),
    ({"yarn_orig_ctx": 1024}, "yarn_orig_ctx", 1024),
]


def context_params(
    model: Model, config: EngineConfig, n_ctx: int = 64, n_cells: int | None = None
) -> Any:
    """The struct that llama_init_from_model gets."""
    seen: list[Any] = []

    def spy(_: Any, params: Any) -> None:
        seen.append(params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.C, "llama_init_from_model", spy)
        with pytest.raises(ModelLoadError, match="no context of"):
            Context(model, config, n_ctx, n_cells)
    return seen[0]


@pytest.mark.parametrize(("settings", "field", "value"), CONTEXT_SETTINGS)
def test_context_settings_reach_llama_cpp(
    settings: dict[str, Any], field: str, value: object, model: Model
) -> None:
    assert getattr(context_params(model, EngineConfig(**settings)), field) == value


def test_the_layout_reaches_llama_cpp(model: Model) -> None:
    split = context_params(model, EngineConfig(n_slots=4), 100, None)
    assert (split.n_ctx, split.kv_unified) == (1024, False)
    unified = context_params(model, EngineConfig(n_slots=4), 100, 250)
    assert (unified.n_ctx, unified.kv_unified) == (250, True)


@pytest.mark.parametrize(
    ("n_slots", "n_batch", "n_ctx", "n_cells"),
    [(16, 8, 64, None), (16, 8, 64, 256), (16, 2048, 8, 8)],
)
def test_a_batch_has_room_for_all_slots(
    n_slots: int, n_batch: int, n_ctx: int, n_cells: int | None, model: Model
) -> None:
    """With less, llama.cpp aborts the process when it makes the context."""
    config = EngineConfig(n_slots=n_slots, n_batch=n_batch)
    params = context_params(model, config, n_ctx, n_cells)
    assert min(params.n_batch, params.n_ctx) >= n_slots


def test_every_kv_quant_is_llama_cpps() -> None:
    from gguf import GGMLQuantizationType

    for name, number in KV_TYPES.items():
        assert number == GGMLQuantizationType[name.upper()]


def test_every_setting_is_looked_at() -> None:
    """Each field of EngineConfig is in a table above, or another module's business."""
    here = {name for settings, _, _ in CONTEXT_SETTINGS for name in settings}
    here |= {"mmap", "mlock", "main_gpu", "split_mode", "tensor_split", "use_extra_bufts"}
    here |= {"devices", "override_tensors", "n_cpu_moe", "rpc_servers"}
    layout = {"n_ctx", "n_ctx_cap", "kv_layout", "kv_budget", "n_cells", "n_gpu_layers"}
    engine = {"max_waiting", "prefill_ms", "prefix_cache", "pooling", "stream_ms", "n_draft"}
    assert here | layout | engine == set(EngineConfig.model_fields)


# The rest.


def test_the_log_keeps_errors_only(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.reason()
    with caplog.at_level("DEBUG", "server.engine.llama"):
        emit(3, b"a warning\n")
    assert caplog.messages == ["llama.cpp: a warning"]
    assert log.reason() == "llama.cpp gave no reason"
    emit(4, b"load: one\n")
    emit(4, b"\n")
    emit(4, b"load: one\n")
    emit(4, b"two \xff\n")
    assert log.reason() == "one; two �"
    assert log.reason() == "llama.cpp gave no reason"


def emit(level: int, text: bytes) -> None:
    """Log as llama.cpp does, through the callback that it was given."""
    callback, data = backend.C.llama_log_callback(), ctypes.c_void_p()
    backend.C.llama_log_get(ctypes.byref(callback), ctypes.byref(data))
    callback(level, text, None)


def test_the_log_counts_buffers(log: Log) -> None:
    """Those of one purpose add up, but for buffers that are made anew."""
    log.forget_buffers()
    for line in (
        "load_tensors:   CPU_Mapped model buffer size =    90.50 MiB",
        "load_tensors:   CPU_Mapped model buffer size =     0.50 MiB",
        "load_tensors: RPC0[127.0.0.1:50052] model buffer size =    10.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =     2.00 MiB",
        "llama_context:        CPU  output buffer size =     1.00 MiB",
        "sched_reserve:        CPU compute buffer size =     9.00 MiB",
        "sched_reserve:        CPU compute buffer size =     5.00 MiB",
        "sched_reserve:        CPU compute buffer size is 5.0 MiB, matches expectation of 5.0 MiB",
    ):
        emit(2, line.encode() + b"\n")
    sizes = {"CPU_Mapped": 91, "RPC0[127.0.0.1:50052]": 10, "CPU": 8}
    assert log.buffers == {name: n * 2**20 for name, n in sizes.items()}
    log.forget_buffers()
    assert log.buffers == {}


def test_memory_is_what_the_parts_are(model: Model, model_path: Path, log: Log) -> None:
    config = SMALL.model_copy(update={"mmap": False, "use_extra_bufts": False})
    with Model(str(model_path), config, 0, log, lambda _: None) as opened:
        ((name, weights),) = opened.memory
        assert name == "CPU"
        assert weights == pytest.approx(model.size_bytes, abs=2**15)
        with Context(opened, SMALL, 64, None):
            ((_, more),) = opened.memory
    assert more - weights > 4 * 64 * model.bytes_per_cell(EngineConfig())


def test_a_sampler_that_could_not_be_made() -> None:
    with pytest.raises(AssertionError, match="made no sampler"):
        llama.Chain([None])
