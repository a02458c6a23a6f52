"""Shared prefixes of rows of tokens, and which of them are worth a run of their own.

A beginning that is run by itself (a *host*) serves every row that starts with it, and every row
that starts with a part of it. Of all choices of hosts the one is taken with which the fewest
tokens are run:

    sum over hosts of (its length + `RUN`)  +  sum over rows of (its length - what of it is frozen)

Rows in lexical order that share d tokens form a node of a tree, and the best choice of a node
follows from those of its children.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

Ids = tuple[int, ...]

RUN = 24
"""What a run of its own costs besides its tokens, in tokens."""


def n_shared(one: Ids, other: Ids) -> int:
    """How many tokens two rows begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass
class _Node:
    """Rows `first..stop-1` in lexical order, which begin with the same `depth` tokens.

    Attributes:
        spared: Tokens that are not run if there is at least one host in here.
        chosen: The children with hosts of their own; without any the node itself is one.
    """

    depth: int
    first: int
    stop: int = 0
    children: "list[_Node]" = field(default_factory=list)
    spared: int = 0
    chosen: "list[_Node]" = field(default_factory=list)

    def close(self, stop: int) -> None:
        """Choose among the children, which are all there."""
        self.stop = stop
        more = [(c.spared - (c.stop - c.first) * self.depth, c) for c in self.children]
        taken = [(gain, child) for gain, child in more if gain > 0]
        own = -(self.depth + RUN)
        if not taken and self.depth and more:  # a host below may be cheaper than one here
            taken = [best for best in [max(more, key=lambda pair: pair[0])] if best[0] >= own]
        self.chosen = [child for _, child in taken]
        gain = sum(gain for gain, _ in taken) if taken else own
        self.spared = (stop - self.first) * self.depth + gain

    def host(self) -> "_Node":
        """A node below (or this one) that is run for itself."""
        node = self
        while node.chosen:
            node = node.chosen[0]
        return node


def hosts_of(heads: Sequence[Ids]) -> dict[Ids, list[tuple[int, int]]]:
    """The beginnings that are run for themselves, and the rows that each serves.

    Args:
        heads: Of every row what may be frozen: the tokens before the first that is read.

    Returns:
        By beginning, the numbers of its rows, each with how many of the tokens it takes. The
        rows that nothing is frozen of are listed under the empty beginning.
    """
    order = sorted(range(len(heads)), key=lambda number: heads[number])
    found: dict[Ids, list[tuple[int, int]]] = {}
    bare = set(order)
    waiting = list(_roots([heads[number] for number in order]))
    while waiting:
        node = waiting.pop()
        waiting += node.chosen
        host = node.host()
        inside = {place for child in node.chosen for place in range(child.first, child.stop)}
        own = [order[p] for p in range(node.first, node.stop) if p not in inside]
        beginning = heads[order[host.first]][: host.depth]
        found.setdefault(beginning, []).extend((number, node.depth) for number in own)
        bare -= set(own)
    if bare:
        found[()] = [(number, 0) for number in sorted(bare)]
    return {beginning: rows for beginning, rows in found.items() if rows}


def _roots(heads: Sequence[Ids]) -> list[_Node]:
    """The topmost nodes with hosts in them, of heads in lexical order."""
    stack = [_Node(0, 0)]
    for place in range(1, len(heads) + 1):
        depth = n_shared(heads[place - 1], heads[place]) if place < len(heads) else 0
        first = place - 1
        while stack[-1].depth > depth:
            node = stack.pop()
            node.close(place)
            first = node.first
            if stack[-1].depth < depth:
                stack.append(_Node(depth, first))
            stack[-1].children.append(node)
        if stack[-1].depth < depth:
            stack.append(_Node(depth, first))
    return [node for node in stack[0].children if node.spared > 0]
