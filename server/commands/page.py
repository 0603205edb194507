"""Page: standard output as an answer is written to it."""

import sys

CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))
"""Characters that could steer a terminal; a model's text has no business with them."""

DIM, GREEN, PLAIN = "\x1b[2m", "\x1b[1;32m", "\x1b[0m"


class Page:
    """Text as it comes. To a terminal without control characters, elsewhere to the letter."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._at_start = True

    def write(self, text: str) -> None:
        """The next text. Raises BrokenPipeError if nobody reads any more."""
        if self.is_terminal:
            text = text.translate(CONTROLS)
        if text:
            self._put(text)
            self._at_start = text.endswith("\n")

    def whisper(self, text: str) -> None:
        """What is not part of the answer: on a terminal only, and dim."""
        if self.is_terminal and (plain := text.translate(CONTROLS)):
            self._put(f"{DIM}{plain}{PLAIN}")
            self._at_start = plain.endswith("\n")

    def end_line(self) -> None:
        """Begin a new line, unless one has just begun."""
        if not self._at_start:
            self._put("\n")
            self._at_start = True

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def say(text: str) -> None:
    """Tell whoever sits there something about the work."""
    sys.stderr.write(f"corral: {text}\n")
    sys.stderr.flush()
