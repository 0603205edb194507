"""Headers of small files made by the gguf package, of broken ones, and of the real model."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from server.errors import ModelLoadError
from server.gguf import Header, Layer, read_beginning, read_ends, read_header
from server.gguf_file import MOST_LAYERS
from tests.gguf_files import write_sparse

TOKENS = ["<s>", "</s>", "hello", "wörld"]


def fill(writer: gguf.GGUFWriter) -> None:
    """A header with every kind of value, and two tensors: 2 x 32 of Q8_0 and 3 of F32."""
    writer.add_name("Tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_block_count(7)
    writer.add_context_length(96)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv([2, 2, 1, 0, 2, 2, 1])
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.5] * len(TOKENS))
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages }}")
    writer.add_float64("tiny.wide", 0.25)
    writer.add_int8("tiny.narrow", -1)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("a", gguf.quantize(np.ones((2, 32), np.float32), q8_0), raw_dtype=q8_0)
    writer.add_tensor("b", np.ones(3, np.float32))


def write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A whole small model."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "tiny")
    fill(writer)
    write(writer)
    return path


def test_a_header(tiny: Path) -> None:
    assert read_header(tiny) == Header(
        kind="model",
        architecture="tiny",
        name="Tiny",
        quant="Q8_0",
        layers=tuple(Layer(0, 0, heads * 8, heads * 8) for heads in (2, 2, 1, 0, 2, 2, 1)),
        input_bytes=68 + 12,
        output_bytes=0,
        tied_bytes=0,
        largest_bytes=0,
        n_embd=32,
        n_ff=0,
        n_head=4,
        n_vocab=len(TOKENS),
        n_ctx_train=96,
        n_params=67,
        size_bytes=tiny.stat().st_size,
        template="{{ messages }}",
    )


def test_a_header_in_the_other_byte_order(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(path, "tiny", endianess=gguf.GGUFEndian.BIG)
    fill(writer)
    write(writer)
    assert path.read_bytes() != tiny.read_bytes()
    assert read_header(path) == read_header(tiny)


def test_a_header_that_says_little(tmp_path: Path) -> None:
    path = tmp_path / "bare.gguf"
    write(gguf.GGUFWriter(path, "bare"))
    header = read_header(path)
    assert (header.name, header.quant, header.template) == ("bare", "unknown", None)
    assert (header.n_layer, header.n_ctx_train, header.n_vocab, header.n_params) == (0, 0, 0, 0)
    assert (header.n_head, header.n_embd_k, header.n_embd_v) == (0, 0, 0)
    assert header.bits_per_weight == 0


def test_the_ends_of_texts(tiny: Path, tmp_path: Path, model_path: Path) -> None:
    assert read_ends(tiny) == ("", "")
    path = tmp_path / "ends.gguf"
    writer = gguf.GGUFWriter(path, "tiny")
    fill(writer)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    write(writer)
    assert read_ends(path) == ("<s>", "</s>")
    assert read_ends(model_path) == ("<|im_start|>", "<|im_end|>")
    beyond = tmp_path / "beyond.gguf"
    writer = gguf.GGUFWriter(beyond, "tiny")
    fill(writer)
    writer.add_eos_token_id(99)
    write(writer)
    assert read_ends(beyond) == ("", "")


def test_numbers_of_layers_that_are_none(tmp_path: Path) -> None:
    """Their count stands for them, as for any array that is not looked into."""
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "tiny")
    writer.add_array("tiny.feed_forward_length", [float("nan"), float("inf")])
    write(writer)
    assert read_header(path).n_ff == 0


def test_a_vocabulary_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "tiny")
    writer.add_string("tokenizer.ggml.tokens", "x")
    write(writer)
    with pytest.raises(ModelLoadError, match="the vocabulary is no array of texts"):
        read_ends(path)


def test_templates_for_tools_and_documents(tmp_path: Path) -> None:
    path = tmp_path / "tools.gguf"
    writer = gguf.GGUFWriter(path, "tiny")
    writer.add_chat_template(
        [
            {"name": "default", "template": "a"},
            {"name": "tool_use", "template": "b"},
            {"name": "rag", "template": "c"},
        ]
    )
    write(writer)
    header = read_header(path)
    assert (header.template, header.tool_template, header.document_template) == ("a", "b", "c")


Said = Callable[[gguf.GGUFWriter], None]


def say(key: str, value: str | int | bool) -> Said:
    """A key that is put into a header."""

    def put(writer: gguf.GGUFWriter) -> None:
        match value:
            case str():
                writer.add_string(key, value)
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)

    return put


@pytest.mark.parametrize(
    ("architecture", "said", "kind"),
    [
        ("llama", [], "model"),
        ("llama", [say("general.type", "model")], "model"),
        ("llama", [say("general.type", "adapter"), say("adapter.type", "lora")], "adapter"),
        ("controlvector", [], "adapter"),
        ("clip", [], "projector"),
        ("clip", [say("general.type", "mmproj")], "projector"),
        ("llama", [say("general.type", "imatrix")], "other"),
    ],
)
def test_kinds(tmp_path: Path, architecture: str, said: list[Said], kind: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", architecture)
    for put_key in said:
        put_key(writer)
    write(writer)
    assert read_header(tmp_path / "x.gguf").kind == kind


@pytest.mark.parametrize(
    ("said", "sizes"),
    [
        ([], (2 * 64, 2 * 64)),
        ([say("llama.attention.head_count_kv", 2)], (2 * 32, 2 * 32)),
        (
            [
                say("llama.attention.head_count_kv", 1),
                say("llama.attention.key_length", 576),
                say("llama.attention.value_length", 512),
            ],
            (2 * 576, 2 * 512),
        ),
        ([say("llama.attention.causal", value=False)], (0, 0)),
    ],
)
def test_sizes_of_a_cell(tmp_path: Path, said: list[Said], sizes: tuple[int, int]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    for put_key in said:
        put_key(writer)
    write(writer)
    header = read_header(tmp_path / "x.gguf")
    assert (header.n_embd_k, header.n_embd_v) == sizes


def test_keys_that_hold_values_too_are_counted_once(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "deepseek2")
    writer.add_block_count(2)
    for key, value in (("head_count_kv", 1), ("key_length", 576), ("value_length", 512)):
        say(f"deepseek2.attention.{key}", value)(writer)
    say("deepseek2.attention.key_length_mla", 192)(writer)
    write(writer)
    header = read_header(tmp_path / "x.gguf")
    assert (header.n_embd_k, header.n_embd_v) == (2 * 576, 0)


def test_where_tensors_belong(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(2)
    for name, size in (
        ("token_embd.weight", 1),
        ("token_embd_norm.weight", 2),
        ("rope_freqs.weight", 4),
        ("blk.0.attn_q.weight", 8),
        ("blk.1.attn_q.weight", 16),
        ("blk.1.ffn_up_exps.weight", 32),
        ("blk.1.ffn_up_shexp.weight", 64),
        ("dec.blk.1.attn_q.weight", 128),
        ("blk.2.attn_q.weight", 256),
        ("output_norm.weight", 512),
        ("cls.weight", 1024),
    ):
        writer.add_tensor(name, np.ones(size, np.float32))
    write(writer)
    header = read_header(tmp_path / "x.gguf")
    assert [layer[:2] for layer in header.layers] == [(32, 0), (4 * 240, 4 * 32)]
    assert (header.input_bytes, header.output_bytes) == (4 * (1 + 2 + 4 + 256), 4 * (512 + 1024))
    assert header.tied_bytes == 4
    assert header.weights == 4 * 2047
    assert header.largest_bytes == 4 * 256
    assert header.has_experts


def test_a_count_of_layers_that_is_nonsense_takes_no_memory(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(2**32 - 1)
    writer.add_head_count(4)
    write(writer)
    assert read_header(tmp_path / "x.gguf").n_layer == MOST_LAYERS


def test_the_shape_of_mixtral(tmp_path: Path) -> None:
    header = read_header(write_sparse(tmp_path / "bagel.gguf"))
    assert header.n_params == 46_702_792_704
    assert header.size_bytes == pytest.approx(26.44e9, rel=0.001)
    assert header.size_bytes == pytest.approx(header.weights, rel=0.001)
    assert (header.n_layer, header.n_vocab, header.n_ff) == (32, 32_000, 2 * 14336)
    assert set(header.layers) == {header.layers[0]}
    layer = header.layers[0]
    # Three matrices for each of eight experts, 4.5 bits a weight.
    assert layer.experts == 8 * 3 * 4096 * 14336 * 4.5 / 8
    assert (layer.k, layer.v) == (1024, 1024)
    assert header.tied_bytes == 0


def test_the_demo_model(model_path: Path) -> None:
    header = read_header(model_path)
    assert (header.architecture, header.quant, header.n_layer) == ("llama", "Q4_1", 30)
    assert (header.n_ctx_train, header.n_vocab, header.n_params) == (8192, 49152, 134_515_008)
    assert header.size_bytes == model_path.stat().st_size
    assert header.bits_per_weight == pytest.approx(5.85, abs=0.01)
    # 30 layers of 3 heads of 64.
    assert (header.n_head, header.n_embd_k, header.n_embd_v) == (9, 5760, 5760)
    assert header.tied_bytes == header.input_bytes == 49152 * 576 / 32 * 34
    assert header.template is not None
    assert "<|im_start|>" in header.template


def test_the_parts_of_a_split_model_count_together(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "tiny", split_max_tensors=1)
    fill(writer)
    write(writer)
    parts = sorted(tmp_path.iterdir())
    header = read_header(parts[0])
    assert [part.name for part in parts] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert header.n_params == 67
    assert header.size_bytes == sum(part.stat().st_size for part in parts)
    with pytest.raises(ModelLoadError, match=r"name the first, \*-00001-of-00002\.gguf"):
        read_header(parts[1])
    parts[1].unlink()
    with pytest.raises(ModelLoadError, match=r"00002-of-00002\.gguf: No such file"):
        read_header(parts[0])


def test_every_cut_is_found(tiny: Path) -> None:
    whole = tiny.read_bytes()
    for length in range(4, len(whole) - 32):
        tiny.write_bytes(whole[:length])
        with pytest.raises(ModelLoadError, match=r"tiny\.gguf: truncated"):
            read_header(tiny)


def test_the_beginning_says_all_or_nothing(tiny: Path) -> None:
    whole = tiny.read_bytes()
    header = read_header(tiny)
    found = [read_beginning(tiny, whole[:n], len(whole)) for n in range(4, len(whole) + 1)]
    end = found.index(header)
    assert set(found[:end]) == {None}
    assert set(found[end:]) == {header}
    assert 4 + end < len(whole)  # before its tensors
    with pytest.raises(ModelLoadError, match=r"tiny\.gguf: truncated: 100 bytes, but its tensors"):
        read_beginning(tiny, whole, 100)


def put(new: bytes) -> Callable[[bytes], bytes]:
    """Another content for the whole file."""
    return lambda whole: new[: len(whole)]


def swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """A change of one place of a file."""

    def change(whole: bytes) -> bytes:
        assert whole.count(old) == 1
        return whole.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put(b""), "not a GGUF file: it is empty"),
        (put(b"PK\x03\x04" + bytes(99)), "not a GGUF file: it does not start with GGUF"),
        (swap(b"GGUF\x03", b"GGUF\x01"), "GGUF version 1 is not supported"),
        (swap(b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x09"), "GGUF version 9 is not supported"),
        (swap(b"tiny.narrow\x01", b"tiny.narrow\x63"), "value type 99 is unknown"),
        (
            swap(
                b"general.name\x08\0\0\0\x04\0\0\0\0\0\0\0", b"general.name\x08\0\0\0" + b"\xff" * 8
            ),
            "bytes end inside the header",
        ),
    ],
)
def test_what_is_no_model_says_why(
    tiny: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    tiny.write_bytes(change(tiny.read_bytes()))
    with pytest.raises(ModelLoadError) as caught:
        read_header(tiny)
    assert caught.value.message.startswith(f"{tiny}: ")
    assert reason in caught.value.message


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="none: No such file or directory"):
        read_header(tmp_path / "none")
    with pytest.raises(ModelLoadError, match="Is a directory"):
        read_header(tmp_path)
