"""The radix tree against a list of everything it was told."""

from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.batch import Tokens
from server.engine.prefix_tree import PrefixTree, common

T = TypeVar("T")

# Few different tokens and mostly extensions of one another, so that edges split and meet.
PROMPTS = st.lists(st.integers(0, 2), max_size=8)
HOLDERS = st.integers(0, 5)


def ids(tokens: list[int]) -> Tokens:
    return np.array(tokens, np.int32)


def n_common(a: list[int], b: list[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


class Tree(PrefixTree[T]):
    """A tree that counts its nodes."""

    @property
    def n_nodes(self) -> int:
        def count(node: Any) -> int:
            return sum(1 + count(child) for child in node.children.values())

        return count(self._root)


class AgainstBruteForce(RuleBasedStateMachine):
    """Holders come, change and go; `find` must always know best."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree[int]()
        self.known: dict[int, list[int]] = {}

    @rule(holder=HOLDERS, tokens=PROMPTS)
    def insert(self, holder: int, tokens: list[int]) -> None:
        self.tree.insert(holder, ids(tokens))
        self.known[holder] = tokens

    @precondition(lambda self: self.known)
    @rule(data=st.data(), holder=HOLDERS, more=PROMPTS, keep=st.integers(0, 8))
    def branch(self, data: st.DataObject, holder: int, more: list[int], keep: int) -> None:
        source = data.draw(st.sampled_from(sorted(self.known)))
        self.insert(holder, self.known[source][:keep] + more)

    @rule(holder=HOLDERS)
    def remove(self, holder: int) -> None:
        self.tree.remove(holder)
        self.known.pop(holder, None)

    @rule(tokens=PROMPTS)
    def find(self, tokens: list[int]) -> None:
        found = list(self.tree.find(ids(tokens)))
        lengths = [n for _, n in found]
        assert lengths == sorted(lengths, reverse=True)
        shared = {holder: n_common(tokens, known) for holder, known in self.known.items()}
        assert dict(found) == {holder: n for holder, n in shared.items() if n}
        assert len(found) == len(dict(found))

    @invariant()
    def has_no_more_nodes_than_edges_need(self) -> None:
        assert len(self.tree) == len(self.known)
        if not self.known:
            assert self.tree.n_nodes == 0

    def teardown(self) -> None:
        for holder in list(self.known):
            self.remove(holder)
        assert len(self.tree) == 0
        assert self.tree.n_nodes == 0


TestAgainstBruteForce = AgainstBruteForce.TestCase


@given(a=PROMPTS, b=PROMPTS)
def test_common(a: list[int], b: list[int]) -> None:
    assert common(ids(a), ids(b)) == n_common(a, b)


def test_find_is_lazy_and_longest_first() -> None:
    tree = PrefixTree[str]()
    tree.insert("short", ids([1, 2]))
    tree.insert("long", ids([1, 2, 3, 4]))
    tree.insert("other", ids([9]))
    found = tree.find(ids([1, 2, 3, 5]))
    assert next(found) == ("long", 3)
    assert list(found) == [("short", 2)]


def test_several_holders_of_the_same_tokens() -> None:
    tree = PrefixTree[str]()
    tree.insert("a", ids([1, 2, 3]))
    tree.insert("b", ids([1, 2, 3]))
    tree.remove("a")
    assert list(tree.find(ids([1, 2, 3]))) == [("b", 3)]


def test_inserting_again_replaces() -> None:
    tree = Tree[str]()
    tree.insert("a", ids([1, 2, 3]))
    tree.insert("a", ids([7]))
    assert list(tree.find(ids([1, 2, 3]))) == []
    assert list(tree.find(ids([7, 8]))) == [("a", 1)]
    assert (len(tree), tree.n_nodes) == (1, 1)


@pytest.mark.parametrize("tokens", [[], [5]])
def test_nothing_is_found_in_an_empty_tree(tokens: list[int]) -> None:
    tree = PrefixTree[str]()
    tree.remove("nobody")
    assert list(tree.find(ids(tokens))) == []
