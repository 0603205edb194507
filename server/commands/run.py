"""`corral run`: a text, continued by a model."""

import sys

from server.commands.failure import CommandError
from server.commands.page import Page, say
from server.commands.session import Manner, Session
from server.config import ConfigError
from server.ipc import GenerateRequest, Text


def prompt(given: str | None) -> str:
    """The prompt, from standard input if none was given. Raises ConfigError or CommandError."""
    if given is None and sys.stdin.isatty():
        raise ConfigError("no prompt: -p TEXT, -f FILE, or -i for a chat")
    try:
        text = sys.stdin.buffer.read().decode() if given is None else given
    except UnicodeDecodeError as error:
        raise CommandError(f"the prompt is not UTF-8: {error}") from error
    if not text:
        raise ConfigError("the prompt is empty")
    return text


def run(session: Session, prompt: str, manner: Manner) -> None:
    """Write what follows. Raises CorralError, BrokenPipeError, or KeyboardInterrupt on Ctrl-C."""
    page = Page()
    worker = session.load()
    request = GenerateRequest(Text(prompt), worker.config.sampling, manner.n, manner.stop)
    try:
        finished = session.answer(request, page.write)
    finally:
        if page.is_terminal:
            page.end_line()
    if finished.reason == "length" and finished.n_completion != manner.n:
        say(f"the answer is cut off: the context of {worker.info.n_ctx:,} tokens is full")
