"""Worker: one loaded GGUF's process, its pipe and its open generations."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TypeVar, assert_never, cast

from server.config import ModelConfig
from server.copying import Imported
from server.errors import CorralError, ModelLoadError, QueueFull, Unavailable, WorkerDied
from server.ipc import (
    Answer,
    Ask,
    Cancel,
    Command,
    Failed,
    Finished,
    GenerateRequest,
    Load,
    LoadFailed,
    Loading,
    Message,
    ModelInfo,
    Question,
    Ready,
    Reply,
    Shutdown,
    Step,
    Submit,
    UseThreads,
)
from server.packing import unpack
from server.pool.generation import Generation
from server.pool.inbox import Inbox
from server.pool.process import Process, crashed_itself, ended_how
from server.pool.spare import Spare
from server.pool.suspects import Suspects

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)

SHUTDOWN_S = 5.0
"""Seconds that a worker has to end by itself."""


class CrashedInWarmUp(ModelLoadError):
    """The process crashed on its first decode."""


class Worker:
    """One process that serves one model, from `start` to its end. Used on the event loop only."""

    def __init__(
        self,
        model: str,
        config: ModelConfig,
        suspects: Suspects,
        log_level: str,
        on_change: Callable[[], None] = lambda: None,
    ):
        """`on_change` is called as the load goes on, and when the worker gets busy or idle."""
        self.model = model
        self.config = config
        self.n_running = 0
        self.n_waiting = 0
        self.n_finished = 0
        self.progress = 0.0
        self._suspects = suspects
        self._log_level = log_level
        self._on_change = on_change
        self._info: ModelInfo | None = None
        self._open: dict[int, tuple[Generation, GenerateRequest]] = {}
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._next_id = 0
        self._process: Process | None = None
        self._n_threads = config.engine.n_threads
        self._closing = False
        self._loaded: asyncio.Future[ModelInfo] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def info(self) -> ModelInfo:
        """What the worker said of its model when it became ready."""
        assert self._info is not None, "the worker is not ready yet"
        return self._info

    @property
    def alive(self) -> bool:
        """The process serves: it is ready, has not died and is not being closed."""
        return self._info is not None and not self._pipe.closed and not self._closing

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer."""
        return bool(self._open or self._asked)

    @property
    def pid(self) -> int | None:
        """Of the process, once there is one."""
        return None if self._process is None else self._process.pid

    async def start(self, spare: Spare) -> None:
        """Take a process from `spare` and load the model.

        Raises ModelLoadError with llama.cpp's reason, or CrashedInWarmUp.
        """
        try:
            self._process, self._pipe = spare.take()
        except OSError as error:
            raise ModelLoadError(
                f"model {self.model}: no worker can be started: {error}"
            ) from error
        self._inbox = Inbox(self._pipe.fileno())
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)
        # uvloop has made it non-blocking, but a large message goes in parts.
        os.set_blocking(self._pipe.fileno(), True)
        self._send(Load(self.model, str(self.config.path), self.config.engine, self._log_level))
        try:
            self._info = await asyncio.shield(self._loaded)
        except BaseException:
            await self.close()
            raise

    async def ended(self) -> str:
        """Wait for the end of the process; how it ended, in words."""
        return await asyncio.shield(self._ended)

    def submit(self, request: GenerateRequest) -> Generation:
        """Hand over a request. Raises QueueFull, Unavailable or RequestRefused."""
        if not self.alive:
            raise Unavailable(f"model {self.model} is not loaded", retry_after=1.0)
        engine = self.config.engine
        if len(self._open) >= self.info.n_slots + engine.max_waiting:
            raise QueueFull(
                f"model {self.model} has {len(self._open)} open requests, at most "
                f"{self.info.n_slots} run and {engine.max_waiting} wait",
                retry_after=2.0,
            )
        self._suspects.check(request)
        id = self._take_id()
        generation = Generation(lambda: self._cancel(id))
        was_busy = self.busy
        self._open[id] = (generation, request)
        self._tell_if(not was_busy)
        self._send(Submit(id, request))
        return generation

    async def ask(self, question: Question, reply: type[R]) -> R:
        """Ask beside the running requests. Raises what the worker says of the question.

        Being cancelled, it tells the worker not to go on.
        """
        if not self.alive:
            raise Unavailable(f"model {self.model} is not loaded", retry_after=1.0)
        id = self._take_id()
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        was_busy = self.busy
        self._asked[id] = answered
        self._tell_if(not was_busy)
        self._send(Ask(id, question))
        try:
            answer = await answered
        except asyncio.CancelledError:
            self._send(Cancel(id))
            raise
        finally:
            self._asked.pop(id, None)
            self._tell_if(not self.busy)
        assert isinstance(answer, reply)
        return answer

    def use_threads(self, n: int) -> None:
        """Compute with so many threads from now on."""
        if n != self._n_threads:
            self._n_threads = n
            self._send(UseThreads(n))

    def _tell_if(self, changed: bool) -> None:
        if changed:
            self._on_change()

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def close(self) -> None:
        """End the process, by force after a while. Open generations fail as Unavailable."""
        self._closing = True
        self._fail_open(Unavailable(f"model {self.model} is being unloaded", retry_after=1.0))
        process = self._process
        assert process is not None, "never started"
        if not self._loaded.done():
            # It reads no commands while it loads, and has nothing to lose.
            process.kill()
        self._send(Shutdown())
        done, _ = await asyncio.wait({self._ended}, timeout=SHUTDOWN_S)
        if not done:
            log.warning("%s: worker %d did not end; killed", self.model, process.pid)
            process.kill()
            await asyncio.shield(self._ended)

    def _cancel(self, id: int) -> None:
        if self._open.pop(id, None):
            self._send(Cancel(id))
            self._tell_if(not self.busy)

    def _send(self, command: Command) -> None:
        try:
            self._pipe.send(command)
        except OSError:
            # The process has died; `_read` sees the end of the pipe and tells everybody.
            log.debug("%s: worker has gone before %s", self.model, type(command).__name__)

    def _read(self) -> None:
        """Messages are there, or parts of one, or the end of the pipe."""
        try:
            messages = self._inbox.read()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._reaper = asyncio.create_task(self._reap())
            return
        for message in messages:
            self._take(cast("Message | Imported", unpack(message)))

    def _take(self, message: Message | Imported) -> None:
        match message:
            case Step():
                self._dispatch(message)
            case Loading(progress=progress):
                self.progress = progress
                self._on_change()
            case Ready(info=info):
                self._loaded.set_result(info)
            case LoadFailed(error=error):
                self._fail_load(error)
            case Imported():
                pass  # it was taken while it said so
            case _:
                assert_never(message)

    def _dispatch(self, step: Step) -> None:
        self.n_running, self.n_waiting = step.n_running, step.n_waiting
        was_busy = self.busy
        for event in step.events:
            if event.id in self._asked:
                assert isinstance(event, Answer | Failed)
                self._reply(event)
                continue
            entry = self._open.get(event.id)
            if entry is None:
                continue  # cancelled meanwhile
            generation, request = entry
            assert not isinstance(event, Answer)
            if isinstance(event, Finished | Failed):
                self.n_finished += 1
                del self._open[event.id]
                self._suspects.clear(request)
            generation.push(event)
        self._tell_if(was_busy and not self.busy)

    def _reply(self, event: Answer | Failed) -> None:
        answered = self._asked[event.id]
        if answered.done():
            return
        if isinstance(event, Failed):
            answered.set_exception(event.error)
        else:
            answered.set_result(event.reply)

    async def _reap(self) -> None:
        """The pipe is at its end: wait for the process and tell whoever depends on it."""
        process = self._process
        assert process is not None
        loop = asyncio.get_running_loop()
        # A core dump of a large process takes a while, hence not on the loop's thread.
        code = await loop.run_in_executor(None, process.wait)
        how = ended_how(code)
        self._ended.set_result(how)
        crashed = crashed_itself(code) and self.progress >= 1.0
        error = CrashedInWarmUp if crashed else ModelLoadError
        self._fail_load(error(f"model {self.model}: its worker died: {how}"))
        for _, request in self._open.values():
            self._suspects.accuse(request)
        self._fail_open(WorkerDied(f"the worker of model {self.model} died ({how}); try again"))
        self.n_running = self.n_waiting = 0

    def _fail_load(self, error: CorralError) -> None:
        if not self._loaded.done():
            self._loaded.set_exception(error)
            # Nobody may be waiting any more.
            self._loaded.exception()

    def _fail_open(self, error: CorralError) -> None:
        opened, self._open = self._open, {}
        for generation, _ in opened.values():
            generation.fail(error)
        for answered in self._asked.values():
            if not answered.done():
                answered.set_exception(error)
