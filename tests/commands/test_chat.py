"""`corral chat` with the real model, at pipes and at a terminal."""

from pathlib import Path

from tests.commands.talking import SMALL, corral, terminal


def test_answers_depend_on_what_was_said_before(model_path: Path, tmp_path: Path) -> None:
    again = b"\n/clear\nName another one.\n"
    said = b"Name a colour.\nName another one.\n" + again + again
    ended = corral(tmp_path, "chat", model_path, *SMALL, "-n", "12", text=said)
    assert (ended.returncode, ended.stderr) == (0, b"")
    _, then, alone, once_more = ended.stdout.decode().splitlines()
    assert then != alone == once_more


def test_system_prompt_first_message_and_template(model_path: Path, tmp_path: Path) -> None:
    options = (*SMALL, "-n", "12", "-i", "-p", "Who are you?")
    plain = corral(tmp_path, "chat", model_path, *options)
    pirate = corral(tmp_path, "run", model_path, *options, "-sys", "Your name is Blackbeard.")
    other = corral(tmp_path, "chat", model_path, *options, "--chat-template", "alpaca")
    assert (plain.returncode, pirate.returncode, other.returncode) == (0, 0, 0)
    assert len({plain.stdout, pirate.stdout, other.stdout}) == 3
    assert b"Blackbeard" in pirate.stdout


def test_what_goes_wrong_at_a_pipe_ends_it(model_path: Path, tmp_path: Path) -> None:
    ended = corral(tmp_path, "chat", model_path, *SMALL, text=b"word " * 300 + b"\nHello\n")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"context of 256" in ended.stderr


def test_at_a_terminal(model_path: Path, tmp_path: Path) -> None:
    with terminal(tmp_path, "chat", model_path, "-t", "1", "-c", "512", "--temp", "0") as shown:
        at = shown.until("> ", shown.until("Ctrl-D the chat"))
        # An unfinished line is dropped; then a message is too long, and the chat goes on.
        shown.type("nonsense")
        at = shown.interrupt("> ", shown.until("nonsense", at))
        shown.type("word\\\n")
        at = shown.until(". ", shown.until("word", at))
        shown.type("word " * 520 + "\n")
        at = shown.until("> ", shown.until("context of 512", at))
        shown.type("Count from one to a hundred, in words.\n")
        at = shown.until("e", shown.until("in words.", at))
        shown.type("\x03")
        at = shown.until("> ", at)
        shown.type("Hello!\n")
        at = shown.until("> ", shown.until("Hello!", at))
        shown.type("\x04")
        assert shown.end() == 0
    assert "is full" not in shown.shown
    assert "Traceback" not in shown.shown


def test_what_is_typed_has_a_colour(model_path: Path, tmp_path: Path) -> None:
    options = ("-t", "1", "-c", "256", "--temp", "0", "-n", "4", "--color")
    with terminal(tmp_path, "run", "-m", model_path, "-i", "-ins", *options) as shown:
        at = shown.until("> ")
        at = shown.until("\x1b[1;32m", at)
        shown.type("Hello!\n")
        at = shown.until("\x1b[0m", shown.until("Hello!", at))
        shown.until("> ", at)
        shown.type("\x04")
        assert shown.end() == 0
