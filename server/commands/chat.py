"""`corral chat`: a conversation in the terminal."""

import sys
from contextlib import suppress
from importlib import import_module

from server.chat.format import chat_format
from server.chat.turn import CallArguments, CallBegin, Content, Parser, Part, Reasoning, Turn
from server.commands.failure import CommandError
from server.commands.page import GREEN, PLAIN, Page, say
from server.commands.session import Manner, Session, legible
from server.errors import CorralError
from server.ipc import GenerateRequest

HINT = r"Ctrl-C ends an answer, Ctrl-D the chat. \ at its end continues a line, /clear forgets all."


def run(session: Session, first: str | None, system: str | None, manner: Manner) -> None:
    """Talk until the input ends. Raises CommandError and CorralError.

    Where somebody sits at a terminal, what goes wrong with one answer is told and the chat goes on.
    """
    with suppress(ImportError):
        # `input` gets its line editing from it.
        import_module("readline")
    chat = _Chat(session, system, manner)
    sits = sys.stdin.isatty()
    if sits:
        say(HINT)
    text = first if first is not None else _asked(sits, chat.page, manner.color)
    while text is not None:
        match text.strip():
            case "":
                pass
            case "/clear":
                chat.forget()
            case _:
                try:
                    chat.say(text)
                except CorralError as error:
                    if not sits:
                        raise
                    say(error.message)
        text = _asked(sits, chat.page, manner.color)


def _asked(sits: bool, page: Page, color: bool) -> str | None:
    """What is typed next; None: the input has ended. Raises CommandError."""
    lines: list[str] = []
    while True:
        sign = (". " if lines else "> ") if sits and page.is_terminal else ""
        try:
            line = legible(_typed(sign, color), "the input")
        except KeyboardInterrupt:
            page.write("\n")
            lines.clear()
            continue
        except EOFError:
            if sign:
                page.write("\n")
            return "\n".join(lines) if lines else None
        except UnicodeDecodeError as error:
            raise CommandError(f"the input is not UTF-8: {error}") from error
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return "\n".join(lines)


def _typed(sign: str, color: bool) -> str:
    """A line, green from the sign on if that is wanted. Raises as `input` does."""
    if not (sign and color):
        return input(sign)
    try:
        # Between these two `readline` does not count what is not seen.
        return input(f"{sign}\x01{GREEN}\x02")
    finally:
        sys.stdout.write(PLAIN)
        sys.stdout.flush()


class _Chat:
    """The messages so far, in the form that templates expect."""

    def __init__(self, session: Session, system: str | None, manner: Manner):
        """Raises CorralError if the model cannot be loaded or is not one to chat with."""
        self.page = Page()
        self._session = session
        self._manner = manner
        self._worker = session.load()
        chat_format(self._worker.config, self._worker.info)
        self._system = (
            [] if system is None else [{"role": "system", "content": legible(system, "-sys")}]
        )
        self._messages = list(self._system)

    def forget(self) -> None:
        """Begin anew."""
        self._messages = list(self._system)

    def say(self, text: str) -> None:
        """One message and its answer. Raises CorralError; then the message was not said."""
        worker = self._worker
        messages = [*self._messages, {"role": "user", "content": text}]
        plan = chat_format(worker.config, worker.info).plan(Turn(messages))
        request = GenerateRequest(
            plan.prompt,
            worker.config.sampling,
            self._manner.n,
            stop=(*plan.stop, *self._manner.stop),
            prompt_param="messages",
            visible=plan.visible,
        )
        answer = _Answer(self.page, plan.parser())
        try:
            finished = self._session.answer(request, answer.push)
        except KeyboardInterrupt:
            finished = None
        finally:
            answer.finish()
            self.page.end_line()
        if (
            finished is not None
            and finished.reason == "length"
            and finished.n_completion != self._manner.n
        ):
            say(f"the context of {worker.info.n_ctx:,} tokens is full; /clear forgets all")
        if answer.text or finished is not None:
            self._messages = [*messages, {"role": "assistant", "content": answer.text}]


class _Answer:
    """One answer as it is written; `text` without the model's thoughts."""

    def __init__(self, page: Page, parser: Parser):
        self._page = page
        self._parser = parser
        self.text = ""

    def push(self, text: str) -> None:
        self._write(self._parser.push(text))

    def finish(self) -> None:
        self._write(self._parser.finish())

    def _write(self, parts: list[Part]) -> None:
        for part in parts:
            match part:
                case Content(text):
                    self.text += text
                    self._page.write(text)
                case Reasoning(text):
                    self._page.whisper(text)
                case CallBegin() | CallArguments():
                    raise AssertionError("a call, without tools")
