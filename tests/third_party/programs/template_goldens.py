# ruff: noqa: RUF001  (DeepSeek's tokens have wide bars)
"""What transformers makes of the public templates: `template_goldens.py FOLDER GOLDENS.json`.

FOLDER has the template of each model as NAME.jinja. Cases that a template refuses are left out.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


TWO_TURNS = [user("How is Bonn?"), assistant("Wet."), user("And Rome?\nTell me.")]
SYSTEM = [{"role": "system", "content": "Be terse."}]
CASES = {
    "one turn": ([user("How is Bonn?")], "answer"),
    "two turns": (TWO_TURNS, "answer"),
    "system": ([*SYSTEM, *TWO_TURNS], "answer"),
    "whole": ([*SYSTEM, *TWO_TURNS, assistant("Dry.")], "nothing"),
    "prefill": ([*TWO_TURNS, assistant("It is")], "continue"),
    "spaces": ([user(" How is Bonn? "), assistant(" Wet. "), user(" And Rome? ")], "answer"),
}
TOKENS = {
    "chatml": ("<s>", "<|im_end|>"),
    "command-r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma": ("<bos>", "<eos>"),
    "llama-2": ("<s>", "</s>"),
    "llama-3": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral-instruct": ("<s>", "</s>"),
    "phi-3": ("<s>", "<|endoftext|>"),
    "qwen": ("<s>", "<|im_end|>"),
    "zephyr": ("<s>", "</s>"),
}


def main(folder, goldens):
    found = {}
    for name, (bos, eos) in TOKENS.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({bos: 0, eos: 1})),
            bos_token=bos,
            eos_token=eos,
        )
        source = (Path(folder) / f"{name}.jinja").read_text(encoding="utf-8")
        texts = {}
        for case, (messages, end) in CASES.items():
            try:
                texts[case] = tokenizer.apply_chat_template(
                    messages,
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=end == "answer",
                    continue_final_message=end == "continue",
                )
            except Exception as error:
                sys.stderr.write(f"{name}, {case}: {error}\n")
        found[name] = {"bos": bos, "eos": eos, "texts": texts}
    cases = {case: {"messages": messages, "end": end} for case, (messages, end) in CASES.items()}
    document = {"cases": cases, "templates": found}
    Path(goldens).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


main(*sys.argv[1:])
