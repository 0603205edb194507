"""Models that are known by their names or architectures, and the data about templates."""

import pytest

from server.chat.choice import names
from server.chat.families import FAMILIES, SHIPPED, family_of

KNOWN = [
    ("jondurbin_bagel-dpo-8x7b-v0.2", "llama", "llama-2"),
    ("bagel-dpo-8x7b-v0.2.Q4_K_M", "llama", "llama-2"),
    ("LLaMA v2", "llama", "llama-2"),
    ("llama-2-7b-chat.Q4_0", "llama", "llama-2"),
    ("codellama_codellama-34b-instruct-hf", "llama", "llama-2"),
    ("Meta-Llama-3-8B-Instruct", "llama", "llama-3"),
    ("Llama-3.2-1B-Instruct-Q8_0", "llama", "llama-3"),
    ("mistralai_mistral-7b-instruct-v0.2", "llama", "mistral-instruct"),
    ("mixtral-8x7b-instruct-v0.1.Q4_K_M", "llama", "mistral-instruct"),
    ("HuggingFaceH4_zephyr-7b-beta", "llama", "zephyr"),
    ("tinyllama_tinyllama-1.1b-chat-v1.0", "llama", "zephyr"),
    ("lmsys_vicuna-7b-v1.5", "llama", "vicuna"),
    ("teknium_openhermes-2.5-mistral-7b", "llama", "chatml"),
    ("cognitivecomputations_dolphin-2.6-mistral", "llama", "chatml"),
    ("Phi-3-mini-4k-instruct", "phi3", "phi-3"),
    ("Qwen2.5-0.5B-Instruct", "qwen2", "qwen"),
    ("DeepSeek-R1-Distill-Qwen-7B", "qwen2", "deepseek"),
    ("DeepSeek V3", "deepseek2", "deepseek"),
    ("gemma-2-9b-it", "gemma2", "gemma"),
    ("anything", "gemma3", "gemma"),
    ("c4ai-command-r-v01", "command-r", "command-r"),
]
UNKNOWN = [
    ("mistral-7b-v0.1", "llama"),
    ("mixtral-8x7b-v0.1", "llama"),
    ("model", "llama"),
    ("llama-30b", "llama"),
    ("Qwen3-8B", "qwen3"),
    ("bagel-shop", "gpt2"),
    ("", ""),
]


@pytest.mark.parametrize(("name", "architecture", "template"), KNOWN)
def test_known(name: str, architecture: str, template: str) -> None:
    found = family_of((name,), architecture)
    assert found is not None
    assert found[0].template == template
    assert found[1] in (f"name {name!r}", f"architecture {architecture}")


@pytest.mark.parametrize(("name", "architecture"), UNKNOWN)
def test_unknown(name: str, architecture: str) -> None:
    assert family_of((name,), architecture) is None


def test_the_files_name_tells_too() -> None:
    found = family_of(("jondurbin", "bagel-7b.Q4_0"), "llama")
    assert found and found[1] == "name 'bagel-7b.Q4_0'"


def test_the_data_is_about_templates_that_exist() -> None:
    assert set(SHIPPED) == set(names())
    assert {family.template for family in FAMILIES} <= set(SHIPPED)


def test_no_family_writes_chatml_to_a_llama_2() -> None:
    for family in FAMILIES:
        if family.template == "chatml":
            assert family.name and not family.name.search("llama-2-7b-chat")
