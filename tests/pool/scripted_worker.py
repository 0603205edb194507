"""A worker process without a model: `python -m tests.pool.scripted_worker LOG MODES FD`.

MODES says how each start goes, separated by commas, the last one for all that follow. LOG is a
file that gets a line for each start. What a request does is its prompt:

    words           `Hello`, ` world`, stop
    pid             the number of this process
    threads         how many it computes with
    commands        what has been received, by type
    hang            one delta, then nothing until it is cancelled
    refuse          Failed
    die             one delta, then a crash
    die at 1 3      a crash if this is start 1 or 3, else words

Of questions it answers Tokenize, with one token, unless the text is `hang` or `commands`.
"""

import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from server.errors import InvalidRequest, ModelLoadError
from server.ipc import (
    Accepted,
    Answer,
    Ask,
    Cancel,
    Command,
    Delta,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Load,
    LoadFailed,
    Loading,
    ModelInfo,
    Question,
    Ready,
    Shutdown,
    Step,
    Submit,
    Text,
    Tokenize,
    Tokenized,
    UseThreads,
)

INFO = ModelInfo(
    n_ctx=64,
    n_ctx_train=64,
    n_slots=2,
    n_vocab=100,
    n_params=1000,
    size_bytes=2000,
    description="scripted",
    template=None,
    bos="<s>",
    eos="</s>",
    special=("<s>", "</s>"),
    kv_layout="split",
    n_gpu_layers=0,
)


PROGRESS: dict[str, tuple[float, ...]] = {
    "fail": (),
    "exit": (),
    "crash_loading": (0.5,),
    "slow": (0.25,),
}
"""What is told before the end of a load, where that is not all."""


def crash(number: int = signal.SIGSEGV) -> None:
    """Die at once."""
    os.kill(os.getpid(), number)
    signal.pause()


def load(pipe: Connection, command: Load, mode: str) -> None:
    """Answer `Load` as the mode says."""
    for progress in PROGRESS.get(mode, (0.5, 1.0)):
        pipe.send(Loading(progress))
    match mode:
        case "fail":
            pipe.send(LoadFailed(ModelLoadError(f"cannot load {command.path}: bad magic")))
            sys.exit(0)
        case "exit":
            sys.exit(3)
        case "crash" | "crash_loading":
            crash()
        case "crash_with_extra_bufts" if command.engine.use_extra_bufts:
            crash()
        case "killed":
            crash(signal.SIGKILL)
        case "slow":
            signal.pause()
        case _:
            pipe.send(Ready(INFO))


def leave(pipe: Connection, mode: str) -> None:
    """End right after `Ready` in the modes that do."""
    if mode == "shout":
        pipe.send(LoadFailed(ModelLoadError("said too late")))
    if mode in ("leave", "shout"):
        sys.exit(4)


def answer(
    id: int, request: GenerateRequest, start: int, seen: list[str], n_threads: int | None
) -> Iterator[Event]:
    """The events of a request; none at the end: it hangs."""
    assert isinstance(request.prompt, Text)
    words = request.prompt.text.split()
    if words[0] == "refuse":
        yield Failed(id, InvalidRequest("no", "prompt"))
        return
    yield Accepted(id, 3)
    match words:
        case ["pid"]:
            yield Delta(id, str(os.getpid()), 1)
        case ["threads"]:
            yield Delta(id, str(n_threads), 1)
        case ["commands"]:
            yield Delta(id, " ".join(seen), 1)
        case ["hang"]:
            yield Delta(id, "Well", 1)
            return
        case ["die", *rest]:
            yield Delta(id, "Alas", 1)
            if not rest or str(start) in rest[1:]:
                crash(signal.SIGABRT)
        case _:
            yield Delta(id, "Hello", 1)
            yield Delta(id, " world", 1)
    yield Finished(id, "", 1, "stop", 3, 0, 3)


def look_up(id: int, question: Question, seen: list[str]) -> tuple[Event, ...]:
    """The answer to a question; none for the text `hang`."""
    match question:
        case Tokenize(text="hang"):
            return ()
        case Tokenize(text="commands"):
            return (Answer(id, Tokenized((), tuple(name.encode() for name in seen))),)
        case Tokenize(text=text):
            return (Answer(id, Tokenized((1,), (text.encode(),))),)
        case _:
            return (Failed(id, InvalidRequest("no", "tokens")),)


def serve(pipe: Connection, mode: str, start: int, n_threads: int | None) -> None:
    """Answer commands until told to stop."""
    seen: list[str] = []
    hanging: set[int] = set()
    while True:
        command: Command = pipe.recv()
        assert not isinstance(command, Load), "loaded twice"
        seen.append(type(command).__name__)
        match command:
            case Submit(id=id, request=request):
                hanging.add(id)
                for event in answer(id, request, start, seen, n_threads):
                    if isinstance(event, Finished | Failed):
                        hanging.discard(id)
                    pipe.send(Step((event,), len(hanging), 0))
            case Ask(id=id, question=question):
                pipe.send(Step(look_up(id, question, seen), len(hanging), 0))
            case Cancel(id=id):
                hanging.discard(id)
                finished = Finished(id, "", 0, "cancelled", 3, 0, 1)
                pipe.send(Step((finished,), len(hanging), 0))
            case Shutdown() if mode == "stubborn":
                signal.pause()
            case Shutdown():
                return
            case UseThreads(n_threads):
                pass


def main() -> None:
    """Serve the pipe whose number is the last argument."""
    log, modes, fd = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
    pipe = Connection(fd)
    command = pipe.recv()
    assert isinstance(command, Load)
    with log.open("a") as file:
        file.write(f"{os.getpid()} {command.engine.use_extra_bufts}\n")
    start = len(log.read_text().splitlines())
    mode = modes[min(start, len(modes)) - 1]
    load(pipe, command, mode)
    leave(pipe, mode)
    serve(pipe, mode, start, command.engine.n_threads)


if __name__ == "__main__":
    main()
