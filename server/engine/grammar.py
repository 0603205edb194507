"""Grammars: what an answer must match, compiled for a vocabulary by llguidance.

JSON is written without spaces: most of it is then forced, and takes no sampling.
"""

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from functools import cached_property
from typing import assert_never, cast

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from server.engine import schema
from server.engine.gbnf import GbnfError
from server.engine.gbnf_lark import to_lark
from server.engine.llama import Logits
from server.engine.schema_keywords import Node, Unenforceable
from server.engine.schema_search import find_fault
from server.engine.vocabulary import Vocabulary
from server.errors import InvalidRequest
from server.ipc import Grammar

log = logging.getLogger(__name__)

MAX_SOURCE = 2**20
"""Characters of a grammar."""

MAX_RULES = 1_000
"""Definitions in a Lark grammar: each may lie deeper than the one before."""

STACK = 2**28
"""Bytes of stack for compiling, which recurs; what is not used costs nothing."""

COMPILE_S = 10.0
"""What compiling may take. Others' grammars wait for it, running sequences do not."""

N_KEPT = 64
"""Compiled grammars that are kept for the next request with the same."""

LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
"""Of one grammar's automata: forced text, which one state each byte, costs 1.5 us a byte."""

NOTHING = "nothing matches it that the model has tokens for"
"""A reason: no token may come next."""

MAX_REASON = 500
"""Characters of llguidance's reasons, which may quote a whole grammar."""

COMPACT = {"whitespace_flexible": False}
DEFINITION = re.compile(r"^\s*[!?]?[A-Za-z_][\w.-]*\s*(\[[^\n]*\])?\s*:", re.MULTILINE)
EMBEDDED = re.compile(r"%json\s*(?=\{)")


class GrammarError(Exception):
    """A grammar that cannot be compiled; the message says why."""


Compiled = tuple[LLMatcher, list[int]]
"""A matcher, and the tokens that it has taken because every answer begins with them."""


class Constraint:
    """Where one answer stands in its grammar. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, n_vocab: int, forced: list[int], param: str):
        """`param`: the request's field that errors are reported for."""
        self._matcher = matcher
        self._param = param
        self._n_vocab = n_vocab
        self._bits = np.zeros((n_vocab + 31) // 32, np.int32)
        self.forced = forced
        """The tokens that every answer begins with; taken already."""

    @property
    def is_complete(self) -> bool:
        """Nothing but the end can follow."""
        return self._matcher.is_stopped()

    def allows(self, token: int) -> bool:
        """Whether the token may come next. Much cheaper than the mask."""
        return self._matcher.validate_tokens([token]) == 1

    def mask(self, logits: Logits) -> None:
        """Set the logits, [n_vocab], of what may not come next to -inf. Raises InvalidRequest."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8), count=self._n_vocab, bitorder="little")
        np.copyto(logits, -np.inf, where=allowed == 0)

    def advance(self, token: int) -> list[int]:
        """Take the token that was chosen; returns those that must follow, taken too.

        Raises InvalidRequest where the grammar turns out to be too complex.
        """
        self._matcher.consume_token(token)
        self._check()
        forced = _take_forced(self._matcher)
        self._check()
        return forced

    def dead_end(self) -> InvalidRequest:
        """What to raise where no token may come next, not even an end."""
        return self._fault("the model has no token for what must come next")

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _error(self._matcher)
            if reason == NOTHING:
                raise self.dead_end()
            raise self._fault(f"the grammar cannot be followed further: {reason}")

    def _fault(self, text: str) -> InvalidRequest:
        return InvalidRequest(f"{self._param}: {text}", self._param)


class Grammars:
    """The grammars of one model. `compile` may be called from any thread."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._kept: OrderedDict[tuple[str, str], Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, "grammar")

    def compile(self, grammar: Grammar) -> Constraint:
        """A constraint at its beginning. Raises InvalidRequest for what cannot be enforced."""
        key = (grammar.syntax, grammar.source)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._compiled(grammar)
                if len(self._kept) > N_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            matcher, forced = self._kept[key]
            return Constraint(
                matcher.deep_copy(), self._vocabulary.n_tokens, list(forced), grammar.param
            )

    def _compiled(self, grammar: Grammar) -> Compiled:
        if len(grammar.source) > MAX_SOURCE:
            length = f"{len(grammar.source):,} characters, at most {MAX_SOURCE:,} are taken"
            raise InvalidRequest(f"{grammar.param}: a grammar of {length}", grammar.param)
        before = threading.stack_size(STACK)
        try:
            # The executor starts its thread here.
            future = self._executor.submit(self._compile, grammar)
        finally:
            threading.stack_size(before)
        try:
            error = future.exception(COMPILE_S)
        except TooSlow:
            error = GrammarError(f"the grammar takes more than {COMPILE_S:g} s to compile")
        if error is None:
            return future.result()
        raise InvalidRequest(f"{grammar.param}: {_reason(error)}", grammar.param)

    def _compile(self, grammar: Grammar) -> Compiled:
        match grammar.syntax:
            case "json_schema":
                return self._compile_schema(schema.prepare(schema.parse(grammar.source)))
            case "regex":
                return self._build(LLMatcher.grammar_from_regex(grammar.source))
            case "gbnf":
                return self._build(LLMatcher.grammar_from_lark(to_lark(grammar.source)))
            case "lark":
                return self._build(LLMatcher.grammar_from_lark(_checked(grammar.source)))
            case _:
                assert_never(grammar.syntax)

    def _compile_schema(self, root: Node) -> Compiled:
        def attempt(node: Node) -> str:
            try:
                self._build(_from_schema(node))
            except (GrammarError, Unenforceable) as error:
                return str(error)
            return ""

        try:
            return self._build(_from_schema(root))
        except GrammarError as error:
            raise find_fault(root, str(error), attempt) from error

    def _build(self, grammar: str) -> Compiled:
        """Raises GrammarError."""
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS)
        warnings = [] if matcher.is_error() else matcher.get_grammar_warnings()
        if warnings:
            raise GrammarError(warnings[0])
        forced = _take_forced(matcher)
        if not matcher.is_stopped():
            # The first mask is the dearest, and shows grammars that nothing matches.
            probe = matcher.deep_copy()
            probe.compute_bitmask()
            matcher = probe if probe.is_error() else matcher
        if matcher.is_error():
            raise GrammarError(_error(matcher))
        return matcher, forced

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        adapter = _Adapter(self._vocabulary)
        made = LLTokenizer(TokenizerWrapper(adapter), eos_token=self._vocabulary.ends.tolist())
        adapter.greedy = made.greedy_tokenize
        return made


class _Adapter:
    """A vocabulary as llguidance wants it: control tokens are marked by a byte of their own."""

    def __init__(self, vocabulary: Vocabulary):
        raw = self._raw = vocabulary.raw
        self.bos_token_id = raw.bos if raw.bos >= 0 else None
        self.eos_token_id = int(vocabulary.ends[0]) if len(vocabulary.ends) else raw.eos
        self.special_token_ids: list[int] = []
        self.tokens = [
            b"\xff" + raw.text(t).encode() if raw.is_control(t) else vocabulary.piece(t)
            for t in range(vocabulary.n_tokens)
        ]
        self.greedy: Callable[[str], list[int]] | None = None

    def __call__(self, data: bytes) -> list[int]:
        """The model's own tokens for forced text: others would lead it astray.

        Some vocabularies lack bytes. Then those of what comes before: no text may come after it.
        """
        text = data.decode()
        tokens = self._tokenize(text)
        if self._spell(tokens) == data:
            return tokens
        # Some put a space before a text, but not in the middle of one.
        marked = self._tokenize(f"\n{text}")
        for n in range(1, 4):
            if self._spell(marked[n:]) == data:
                return marked[n:]
        return self._sound(self.greedy(text) if self.greedy else tokens, data)

    def _sound(self, tokens: list[int], data: bytes) -> list[int]:
        """The tokens as far as they spell the data."""
        n_sound = n_spelled = 0
        for token in tokens:
            piece = self._spell([token])
            if not piece or not data.startswith(piece, n_spelled):
                break
            n_sound, n_spelled = n_sound + 1, n_spelled + len(piece)
        return tokens[:n_sound]

    def _tokenize(self, text: str) -> list[int]:
        return self._raw.tokenize(text, add_special=False, parse_special=False).tolist()

    def _spell(self, tokens: list[int]) -> bytes:
        return b"".join(self.tokens[t] for t in tokens if t < len(self.tokens))


def _take_forced(matcher: LLMatcher) -> list[int]:
    """What must come next, all of it, taken."""
    forced = [] if matcher.is_stopped() else matcher.compute_ff_tokens()
    if forced:
        matcher.consume_tokens(forced)
    return forced


def _from_schema(node: Node) -> str:
    try:
        return LLMatcher.grammar_from_json_schema(json.dumps({**node, "x-guidance": COMPACT}))
    except ValueError as error:
        raise Unenforceable("", str(error)) from error


def _checked(source: str) -> str:
    """A Lark grammar whose embedded JSON schemas are sound. Raises Unenforceable."""
    if source.lstrip().startswith("{"):
        raise GrammarError("a Lark grammar does not begin with '{'")
    n_rules = len(DEFINITION.findall(source))
    if n_rules > MAX_RULES:
        raise GrammarError(f"{n_rules:,} rules and terminals, at most {MAX_RULES:,} are taken")
    written, at = "", 0
    for match in EMBEDDED.finditer(source):
        if match.start() < at:
            continue
        try:
            found, end = json.JSONDecoder().raw_decode(source, match.end())
        except (ValueError, RecursionError):
            continue  # llguidance has the better message, if it is no text in quotes
        root = schema.prepare(cast(Node, found))
        root["x-guidance"] = COMPACT
        written += source[at : match.end()] + json.dumps(root)
        at = end
    return written + source[at:]


def _reason(error: BaseException) -> str:
    """Why a grammar was not compiled. llguidance's panics are no exceptions of a known kind."""
    match error:
        case GrammarError() | GbnfError() | Unenforceable():
            return str(error)
        case RecursionError():
            return "the grammar is nested too deeply"
        case _:
            log.error("a grammar could not be compiled", exc_info=error)
            return "the grammar cannot be compiled"


def _error(matcher: LLMatcher) -> str:
    """llguidance's reason, without the states that it tells of."""
    reason = re.split(r"\n<(?:state|grammar)>", matcher.get_error())[0].strip()
    if "NoExtensionBias" in reason:
        return NOTHING
    return reason[:MAX_REASON]
