"""The shipped templates as data: what they stop at, and the models that are known to want them."""

import re
from typing import NamedTuple


class Shipped(NamedTuple):
    """One template of templates/."""

    stops: tuple[str, ...]
    """Where the next turn would begin. Models that lack the control tokens write them as text."""
    like: str
    """What the template is for, in a few words."""


SHIPPED = {
    "alpaca": Shipped(("### Instruction:", "</s>"), "Alpaca and the many that follow it"),
    "bagel-alpaca": Shipped(("### Instruction:", "</s>"), "Bagel, as Alpaca"),
    "bagel-chatml": Shipped(("</s>", "<s>"), "Bagel, as ChatML with its own BOS and EOS"),
    "chatml": Shipped(("<|im_end|>", "<|im_start|>"), "ChatML: Hermes, Dolphin, Yi and others"),
    "command-r": Shipped(("<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>"), "Command R"),
    "deepseek": Shipped(
        ("<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>"), "DeepSeek 2.5, 3, R1"
    ),
    "gemma": Shipped(("<end_of_turn>", "<start_of_turn>"), "Gemma 1 to 3"),
    "llama-2": Shipped(("</s>", "[INST]"), "Llama 2 Chat, Code Llama Instruct, Bagel"),
    "llama-3": Shipped(("<|eot_id|>", "<|start_header_id|>"), "Llama 3"),
    "mistral-instruct": Shipped(("</s>", "[INST]"), "Mistral and Mixtral Instruct 0.1, 0.2"),
    "phi-3": Shipped(("<|end|>", "<|user|>"), "Phi 3"),
    "qwen": Shipped(("<|im_end|>", "<|im_start|>"), "Qwen 1.5 to 2.5"),
    "raw": Shipped((), "the messages' texts and nothing else"),
    "rewoo": Shipped(("### Instruction:", "</s>"), "plans of what tools are to do, for Bagel"),
    "vicuna": Shipped(("USER:", "</s>"), "Vicuna, and Bagel"),
    "zephyr": Shipped(("</s>", "<|user|>", "<|system|>"), "Zephyr, TinyLlama Chat"),
}
"""By name. Other files in templates/ work as well; they have no stops."""


class Family(NamedTuple):
    """Models that want a template. Of several that fit, the first."""

    template: str
    name: re.Pattern[str] | None
    """Found in the model's name or its file's, in lower case; None: by architecture alone."""
    architectures: tuple[str, ...] = ()
    """One of these; empty: any."""


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z]){pattern}")


# Trained with four templates; this is the one that its own tokenizer has.
BAGEL = Family("llama-2", _named("bagel"), ("llama",))

BAGELS_ALONE = frozenset({"bagel-alpaca", "bagel-chatml"})
BAGELS_TOO = frozenset({"alpaca", "llama-2", "vicuna"})

FAMILIES = (
    BAGEL,
    Family("deepseek", _named(r"deepseek.?(v2\.5|v3|r1)")),
    Family("chatml", _named(r"(open|nous.?)?hermes|dolphin|smollm|internlm2|orca.?2|yi.*chat")),
    Family("vicuna", _named("vicuna")),
    Family("alpaca", _named("alpaca|wizardcoder|nous.?hermes.?13b")),
    Family("zephyr", _named("zephyr|tinyllama.*chat")),
    Family("llama-3", _named(r"(meta.?)?llama.?(v?3)(?!\d)"), ("llama",)),
    # "LLaMA v2" is what converters of that time called them.
    Family("llama-2", _named(r"(meta.?)?llama.?(v2|2)(?!\d)|codellama.*instruct"), ("llama",)),
    Family("mistral-instruct", _named(r"mi(s|x)tral.*instruct"), ("llama",)),
    Family("phi-3", _named(r"phi.?3"), ("phi3", "llama")),
    Family("qwen", _named(r"qwen.?(1\.5|2)"), ("qwen2", "qwen2moe")),
    Family("gemma", None, ("gemma", "gemma2", "gemma3")),
    Family("command-r", None, ("command-r",)),
)


def family_of(names: tuple[str, ...], architecture: str) -> tuple[Family, str] | None:
    """The family of a model, and what tells: its name, its file's name or its architecture."""
    for family in FAMILIES:
        if family.architectures and architecture not in family.architectures:
            continue
        if family.name is None:
            return family, f"architecture {architecture}"
        for name in names:
            if family.name.search(name.lower()):
                return family, f"name {name!r}"
    return None


def is_bagels(template: str | None, names: tuple[str, ...], architecture: str) -> bool:
    """Whether Bagel was trained on what this template writes, for the model that has it."""
    if template in BAGELS_ALONE:
        return True
    found = family_of(names, architecture)
    return template in BAGELS_TOO and found is not None and found[0] is BAGEL
