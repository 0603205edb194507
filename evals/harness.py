"""Runs lm-evaluation-harness for `corral eval`, by any interpreter that has it.

Reads two lines of JSON: which tasks, which it answers with the kinds of requests they make; then
which server, which it answers with all results. Whatever it cannot do it answers with `refused`.
Progress and log go to standard error.
"""

import difflib
import json
import logging
import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import requests
from lm_eval import simple_evaluate
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

HERE = Path(__file__).resolve().parent
ANSWER_S = 3600
FEW_SHOT = "gsm8k_few_shot.jsonl"
SAID = re.compile(r"(?:error message|Response text): (.*)\. Retrying", re.DOTALL)


class Refused(Exception):
    """What cannot be done, said to whoever typed the command."""


class Tokenizer:
    """The model's own, asked over HTTP. The harness's asks for no model by its name."""

    def __init__(self, url, model, headers):
        self._url = url
        self._model = model
        self._session = requests.Session()
        self._session.headers.update(headers)
        answer = self._session.get(
            f"{url}/tokenizer_info", params={"model": model}, timeout=ANSWER_S
        )
        answer.raise_for_status()
        info = answer.json()
        self.n_ctx = info["model_max_length"]
        self.eos_token, self.pad_token = info["eos_token"], info["pad_token"]
        bos, eos = info["bos_token"], info["eos_token"]
        self.bos_token_id = self.encode(bos)[0] if bos else None
        self.eos_token_id = self.encode(eos)[0] if eos else None
        self.adds_bos = info["add_bos_token"] and self.bos_token_id is not None

    def encode(self, text):
        """A text's tokens, with nothing added."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        answer = self._session.post(f"{self._url}/tokenize", json=body, timeout=ANSWER_S)
        answer.raise_for_status()
        return answer.json()["tokens"]


class Completions(LocalCompletionsAPI):
    """Texts are continued as texts, which are never cut; likelihoods are of token ids."""

    eos_string = None

    def __init__(self, url, model, **options):
        super().__init__(
            base_url=f"{url}/v1/completions", model=model, tokenizer_backend=None, **options
        )
        self._place = url, model

    def loglikelihood(self, requests, disable_tqdm=False):
        self._count_tokens()
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        self._count_tokens()
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests, disable_tqdm=False):
        self.tokenized_requests = False
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _count_tokens(self):
        if self.tokenizer is None:
            self.tokenizer = Tokenizer(*self._place, self.header)
            self.tokenizer_backend = "remote"
            self.max_length = self.tokenizer.n_ctx - 1
        self.tokenized_requests = True

    def _encode_pair(self, context, continuation):
        before, after = super()._encode_pair(context, continuation)
        bos = [self.tokenizer.bos_token_id]
        if self.tokenizer.adds_bos and before[:1] != bos:
            before = bos + before
        return before, after


class LastWords(logging.Handler):
    """Keeps what the server last said was wrong."""

    text = ""

    def emit(self, record):
        if found := SAID.search(record.getMessage()):
            self.text = found[1]
            with suppress(ValueError, KeyError, TypeError):
                self.text = json.loads(found[1])["error"]["message"]


def manager_of(order, folder):
    """The tasks of the harness, ours, those of the order, and ours with the order's data."""
    places = [HERE, *([order["include_path"]] if order["include_path"] else [])]
    if data := order["data"]:
        task = order["tasks"][0]
        files = {"test": data, **({"train": str(HERE / FEW_SHOT)} if "gsm8k" in task else {})}
        parts = [task, f"{task}_mc1", f"{task}_mc2"]
        for name in parts:
            if (base := HERE / f"{name}.yaml").is_file() and "group:" not in base.read_text():
                kwargs = {"data_files": files}
                ours = {"include": str(base), "task": name, "dataset_path": "json"}
                ours |= {"dataset_name": None, "dataset_kwargs": kwargs}
                (Path(folder) / f"{name}.yaml").write_text(json.dumps(ours))
        places.append(folder)
    return TaskManager(include_path=[str(place) for place in places])


def known(manager, tasks):
    """Refuse tasks that nobody knows, with the names that they may be meant as."""
    for task in tasks:
        if task not in manager.task_index:
            names = manager.all_tasks
            starts = [name for name in names if name.startswith(task)]
            near = difflib.get_close_matches(task, names, 6)
            meant = ", ".join(dict.fromkeys([*near, *starts][:6]))
            raise Refused(f"there is no task {task!r}" + (f"; near: {meant}" if meant else ""))


def evaluate(manager, order, place):
    """All results and samples, as the harness gives them."""
    options = {"num_concurrent": order["concurrent"], "timeout": ANSWER_S, "max_retries": 2}
    url, model = place["url"], place["model"]
    if order["chat"]:
        asked = LocalChatCompletion(base_url=f"{url}/v1/chat/completions", model=model, **options)
    else:
        asked = Completions(url, model, **options)
    words = LastWords()
    logging.getLogger("lm_eval").addHandler(words)
    try:
        return simple_evaluate(
            model=asked,
            tasks=order["tasks"],
            task_manager=manager,
            num_fewshot=order["num_fewshot"],
            limit=order["limit"],
            apply_chat_template=order["chat"],
            gen_kwargs=order["generation"] or None,
            log_samples=True,
        )
    except NotImplementedError as error:
        raise Refused(
            "this task needs likelihoods, which the chat API does not give; leave --chat out"
        ) from error
    except Exception as error:
        raise Refused(words.text or f"{type(error).__name__}: {error}") from error


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever prints, prints to the log.
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value, default=handle_non_serializable) + "\n")
        answers.flush()

    try:
        order = json.loads(sys.stdin.readline())
        with tempfile.TemporaryDirectory(prefix="corral-") as folder:
            manager = manager_of(order, folder)
            known(manager, order["tasks"])
            answer({})
            if place := sys.stdin.readline():
                answer(evaluate(manager, order, json.loads(place)))
    except Refused as error:
        answer({"refused": str(error)})


if __name__ == "__main__":
    main()
