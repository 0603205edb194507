"""Session: one model, opened in this process for one command, without a server."""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from rich.markup import escape
from rich.status import Status

from server.commands.console import err
from server.commands.failure import CommandError
from server.commands.page import say
from server.config import Config, ConfigError, EngineConfig, ModelConfig
from server.errors import ModelNotFound
from server.ipc import Finished, GenerateRequest, ModelInfo
from server.pool.catalog import read_catalog
from server.pool.events import Listener, StateChanged
from server.pool.pool import Lease, ModelPool
from server.pool.worker import Worker
from server.sampling import SamplingParams

OPTIONS = {
    "n_gpu_layers": "-ngl",
    "n_ctx": "-c",
    "n_threads": "-t",
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "repeat_penalty": "--repeat-penalty",
    "repeat_last_n": "--repeat-last-n",
    "n_batch": "-b",
    "seed": "-s",
}
"""What settings are called on the command line."""

ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}

UNLIMITED = 2**31 - 1
"""Tokens; for the cap of a context that is to be what the model was trained for."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Settings of the command line, by their names in the configuration; None: not given."""

    engine: Mapping[str, object]
    sampling: Mapping[str, object]
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are to be: their most tokens, what ends them, whether questions have a colour."""

    n: int | None = None
    stop: tuple[str, ...] = ()
    color: bool = False


class Session:
    """The model, loaded when it is first asked, and its answers one by one."""

    def __init__(self, runner: asyncio.Runner, pool: ModelPool, id: str):
        self._runner = runner
        self._pool = pool
        self._id = id

    def load(self) -> Worker:
        """Load it, and warn of a context that it was not trained for.

        Raises CorralError, or KeyboardInterrupt on Ctrl-C.
        """
        worker = self._runner.run(self._load())
        if why := beyond_training(worker.config.engine, worker.info):
            say(why)
        return worker

    def answer(self, request: GenerateRequest, write: Callable[[str], None]) -> Finished:
        """Have a request answered, its text written as it comes.

        Raises CorralError, or KeyboardInterrupt on Ctrl-C, which ends the answer.
        """
        return self._runner.run(self._answer(request, write))

    async def _load(self) -> Worker:
        lease = await self._lease()
        lease.release()
        return lease.worker

    async def _answer(self, request: GenerateRequest, write: Callable[[str], None]) -> Finished:
        lease = await self._lease()
        try:
            generation = lease.worker.submit(request)
            try:
                await generation.accepted()
                async for event in generation:
                    match event:
                        case Finished():
                            write(event.text)
                            return event
                        case _:
                            write(getattr(event, "text", ""))
            finally:
                generation.close()
        finally:
            lease.release()
        raise AssertionError("an answer without an end")

    async def _lease(self) -> Lease:
        """The model, loaded if it is not; how far it has come is shown on a terminal."""
        if self._pool.usable(self._id):
            return await self._pool.lease(self._id)
        listener = self._pool.events.listen()
        with err().status(f"loading {escape(self._id)}") as status:
            telling = asyncio.create_task(_tell(listener, status))
            try:
                return await self._pool.lease(self._id)
            finally:
                listener.close()
                await telling


async def _tell(listener: Listener, status: Status) -> None:
    while (event := await listener.next()) is not None:
        if isinstance(event, StateChanged) and event.progress is not None:
            status.update(f"loading {escape(event.model)} {event.progress:.0%}")


def beyond_training(engine: EngineConfig, info: ModelInfo) -> str:
    """A warning where the context is longer than what the model knows; empty where it is not."""
    scaled = engine.rope_scaling or engine.rope_freq_base or engine.rope_freq_scale
    if scaled or not 0 < info.n_ctx_train < info.n_ctx:
        return ""
    return (
        f"the model was trained for a context of {info.n_ctx_train:,} tokens, not of "
        f"{info.n_ctx:,}: beyond that its answers lose their sense"
    )


@contextmanager
def opened(config: Config, model: str, wishes: Wishes) -> Generator[Session]:
    """The model of that name, or in that file, run as wished; unloaded at the end.

    Raises ModelNotFound or ConfigError.
    """
    alone, id = only(config, model, wishes)
    with asyncio.Runner() as runner:
        pool = ModelPool(alone)
        try:
            yield Session(runner, pool, id)
        finally:
            runner.run(pool.close())


def only(config: Config, model: str, wishes: Wishes) -> tuple[Config, str]:
    """A configuration with one model in it, and that one's id. Raises as `opened` does."""
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        id, found = path.stem, _of_file(config, path)
    else:
        catalog = read_catalog(config)
        try:
            id = catalog.resolve(model)
        except ModelNotFound as error:
            if path.suffix != ".gguf":
                raise
            raise ModelNotFound(f"there is no file {path}, and {error.message}") from None
        found = catalog.models[id]
    engine: dict[str, object] = {**wishes.engine, "n_slots": 1}
    if engine.get("n_ctx") == 0:
        engine |= {"n_ctx": None, "n_ctx_cap": UNLIMITED}
    changed: dict[str, object] = {
        "engine": _changed(EngineConfig, found.engine, engine),
        "sampling": _changed(SamplingParams, found.sampling, wishes.sampling),
        "preload": False,
    }
    if wishes.template is not None:
        changed["template"] = wishes.template
    rest: dict[str, object] = {
        "models": {id: found.model_copy(update=changed)},
        "models_dir": (),
        "hf_cache": "off",
        "default_model": None,
        "server": config.server.model_copy(update={"log_level": "warning"}),
    }
    return config.model_copy(update=rest), id


def _of_file(config: Config, path: Path) -> ModelConfig:
    """How the file is configured, else as those are that are found."""
    real = path.resolve()
    for model in config.models.values():
        if model.path.resolve() == real:
            return model
    return ModelConfig(path=path, engine=config.found.engine, sampling=config.found.sampling)


def _changed(kind: type[M], settings: M, wished: Mapping[str, object]) -> M:
    """The settings with those that are wished. Raises ConfigError, which names the option."""
    given = {name: value for name, value in wished.items() if value is not None}
    if "n_ctx_cap" in given:
        given["n_ctx"] = None
    try:
        return kind.model_validate({**dict(settings), **given})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        name = str(faults[0]["loc"][0])
        why = "; ".join(dict.fromkeys(fault["msg"] for fault in faults))
        raise ConfigError(f"{OPTIONS.get(name, name)} {given.get(name)}: {why}") from error


def n_tokens(predict: int) -> int | None:
    """What -n says: None, until the answer ends or the context is full. Raises ConfigError."""
    if predict in (-1, -2):
        return None
    if predict < 1:
        raise ConfigError(f"-n {predict}: at least 1, or -1 for an answer up to its end")
    return predict


def read_prompt(prompt: str | None, file: Path | None, escapes: bool) -> str | None:
    """The prompt of the command line, if there is one. Raises ConfigError or CommandError."""
    if file is None:
        if prompt is None:
            return None
        return unescaped(legible(prompt, "-p")) if escapes else legible(prompt, "-p")
    if prompt is not None:
        raise ConfigError("-p and -f exclude each other")
    try:
        # As in llama.cpp, for editors end every file so.
        return file.read_text(encoding="utf-8").removesuffix("\n")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: not UTF-8: {error}") from error


def legible(text: str, what: str) -> str:
    """The text, which came from outside. Raises CommandError if it was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CommandError(f"{what}: not UTF-8") from error
    return text


def unescaped(text: str) -> str:
    r"""The text with a line break for each `\n`, and so on; what is no escape stays."""
    parts = text.split("\\")
    read, rest = parts[0], parts[1:]
    while rest:
        part = rest.pop(0)
        if not part and rest:
            read += "\\" + rest.pop(0)
        elif part[:1] in ESCAPES and part:
            read += ESCAPES[part[0]] + part[1:]
        else:
            read += "\\" + part
    return read
