"""PrefixTree: who holds the KV cells of which token prefix. A radix tree over token ids."""

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np

from server.engine.batch import Tokens

Holder = TypeVar("Holder")


class _Node(Generic[Holder]):
    """The tokens between the parent and here, and everyone whose tokens lead through here."""

    __slots__ = ("children", "holders", "tokens")

    def __init__(self, tokens: Tokens):
        self.tokens = tokens
        self.children: dict[int, _Node[Holder]] = {}
        self.holders: dict[Holder, None] = {}


class PrefixTree(Generic[Holder]):
    """Finds the holders that share the longest prefixes with given tokens."""

    def __init__(self) -> None:
        self._root = _Node[Holder](np.empty(0, np.int32))
        self._tokens: dict[Holder, Tokens] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def insert(self, holder: Holder, tokens: Tokens) -> None:
        """Say that `holder` has (or will have) the cells of `tokens`. Replaces what it had."""
        self.remove(holder)
        self._tokens[holder] = tokens
        node, depth = self._root, 0
        while depth < len(tokens):
            child = node.children.get(int(tokens[depth]))
            if child is None:
                child = node.children[int(tokens[depth])] = _Node[Holder](tokens[depth:])
            else:
                n = common(child.tokens, tokens[depth:])
                if n < len(child.tokens):
                    child = self._split(node, child, n)
            child.holders[holder] = None
            node, depth = child, depth + len(child.tokens)

    def remove(self, holder: Holder) -> None:
        """Forget a holder; nothing happens if it is not known."""
        tokens = self._tokens.pop(holder, None)
        if tokens is None:
            return
        node, depth = self._root, 0
        while depth < len(tokens):
            first = int(tokens[depth])
            child = node.children[first]
            del child.holders[holder]
            depth += len(child.tokens)
            if not child.holders:
                # Whoever is below is also here, so nobody is.
                del node.children[first]
                return
            node = child

    def find(self, tokens: Tokens) -> Iterator[tuple[Holder, int]]:
        """Each holder that shares a prefix, and its length: the longest first."""
        path: list[tuple[_Node[Holder], int]] = []
        node, depth = self._root, 0
        while depth < len(tokens):
            child = node.children.get(int(tokens[depth]))
            if child is None:
                break
            n = common(child.tokens, tokens[depth:])
            depth += n
            path.append((child, depth))
            if n < len(child.tokens):
                break
            node = child
        seen: set[Holder] = set()
        for node, depth in reversed(path):
            for holder in node.holders:
                if holder not in seen:
                    seen.add(holder)
                    yield holder, depth

    def _split(self, parent: _Node[Holder], child: _Node[Holder], n: int) -> _Node[Holder]:
        """Put a node between the two, after the child's first `n` tokens."""
        middle = _Node[Holder](child.tokens[:n])
        middle.holders = dict(child.holders)
        middle.children[int(child.tokens[n])] = child
        parent.children[int(child.tokens[0])] = middle
        child.tokens = child.tokens[n:]
        return middle


def common(a: Tokens, b: Tokens) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    first = int(differs.argmax()) if n else 0
    return first if n and differs[first] else n
