"""What an answer must match, from all that a request asks for together."""

import json
from typing import NamedTuple

from server.chat.dialect import Dialect, Offer, grammar, no_calls
from server.chat.lark import Spelling, regex, schema, up_to
from server.chat.reasoning import Thoughts
from server.chat.turn import Tool, Turn
from server.errors import InvalidRequest
from server.ipc import Grammar


class Wanted(NamedTuple):
    """One turn's wishes: a format for the answer, calls, and thoughts before either."""

    turn: Turn
    allowed: tuple[Tool, ...]
    """The tools that may be called."""
    dialect: Dialect
    spelling: Spelling
    thoughts: Thoughts | None
    inside: bool
    """The prompt has begun the thoughts."""

    @property
    def prefix(self) -> str:
        """What the prompt must end with, so that a grammar that stands for itself can hold.

        Thoughts that the prompt has begun are closed, and a dialect's own start of text is given.
        """
        if self._embedded is not None or self.turn.answer is None or self.allowed:
            return ""
        end = f"\n{self.thoughts.end}\n\n" if self.thoughts and self.inside else ""
        return end + self.dialect.answer_start

    def grammar(self) -> Grammar | None:
        """Raises InvalidRequest where two wishes cannot be joined."""
        if not self.allowed:
            return self._answer_alone()
        answer = self.turn.answer
        required = self.turn.tool_choice.mode == "required"
        if not self._constrained and answer is None:
            return None
        if answer is not None and not required and self._embedded is None:
            raise InvalidRequest(
                f"{answer.param}: a grammar in {answer.syntax} cannot be joined with tools; "
                "use a JSON schema or a regex, or tool_choice none or required",
                param=answer.param,
            )
        offer = Offer(
            self.allowed,
            self.turn.parallel_tool_calls and not (required and self._one_will_do),
            required,
            self.spelling,
            None if required else self._embedded,
            self._thinking,
        )
        return Grammar("lark", self._rules(grammar(self.dialect, offer)), self._param)

    @property
    def _one_will_do(self) -> bool:
        """A call was demanded that the model may not know how to stop repeating."""
        return len(self.turn.tool_choice.names) == 1 or self.dialect.own_prompt

    @property
    def _constrained(self) -> bool:
        """Whether calls have to be held to something."""
        choice = self.turn.tool_choice
        return (
            choice.mode == "required"
            or bool(choice.names)
            or not self.turn.parallel_tool_calls
            or self.dialect.own_prompt
            or any(tool.strict for tool in self.allowed)
        )

    @property
    def _param(self) -> str:
        """The field that a fault of the grammar is reported for."""
        if len(self.allowed) == 1:
            return self.allowed[0].param
        return "tools"

    def _answer_alone(self) -> Grammar | None:
        answer, embedded = self.turn.answer, self._embedded
        if answer is None and self.turn.tools:
            # Tools are given and none may be called, but the history may show how it is done.
            lark = no_calls(self.dialect, self._thinking)
            return Grammar("lark", self._rules(lark), "tool_choice") if lark else None
        if answer is None or embedded is None:
            return answer
        if self.dialect.grammar:
            offer = Offer((), False, False, self.spelling, embedded)
            return Grammar("lark", grammar(self.dialect, offer), answer.param)
        if not self._thinking:
            return answer
        lark = f"start: {self._thinking} answer\nanswer: {embedded}\n"
        return Grammar("lark", self._rules(lark), answer.param)

    @property
    def _embedded(self) -> str | None:
        """The answer's format as part of a Lark grammar; None: there is none, or it cannot be."""
        match self.turn.answer:
            case Grammar("json_schema", source):
                return schema(json.loads(source))
            case Grammar("regex", source):
                return regex(source)
            case _:
                return None

    @property
    def _thinking(self) -> str:
        if self.thoughts is None or self.dialect.grammar:
            return ""
        return "thinking space?" if self.inside else "(thinking space?)?"

    def _rules(self, lark: str) -> str:
        """The grammar, with the rules for thoughts that it refers to."""
        if not self._thinking or self.thoughts is None:
            return lark
        start, end = self.thoughts
        spell = self.spelling.text
        begin = "" if self.inside else spell(start)
        if self.spelling.is_control(end):
            thinking = f"thinking: {begin} /(?s:.*)/ {spell(end)}"
        else:
            thinking = f"thinking: {begin} to_end\nto_end[lazy]: {up_to(end)}"
        return f"{lark}\n{thinking}\nspace: /\\s+/\n"
