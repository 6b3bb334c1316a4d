"""Groups: examples of the same object, which a split must keep on one side."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from topwork.data.dataset import Dataset
from topwork.errors import InputError


def is_pattern(group_by: str) -> bool:
    """Whether `--group-by` is a regular expression for the path (it contains parentheses) or a column name."""
    return "(" in group_by


def group_by_pattern(dataset: Dataset, pattern: str) -> Dataset:
    r"""Set each example's group to the part of its id that `pattern` captures, as in Python's `re.search`.

    Raises:
        InputError: `pattern` is not a regular expression, or it captures nothing in some id.

    >>> from topwork.data.dataset import Example, FileImage
    >>> d = Dataset(tuple(Example(n, FileImage(n), n[0]) for n in ("a/p1_x.jpg", "b/p1_y.jpg")), ("a", "b"), "d")
    >>> [e.group for e in group_by_pattern(d, r"(p\d+)_")]
    ['p1', 'p1']
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise InputError(f"--group-by {pattern!r}: expected a regular expression; {error}") from None
    groups = []
    for example in dataset:
        found = search(example.id)
        part = next((g for g in found.groups() if g is not None), None) if found else None
        if part is None:
            raise InputError(
                f"--group-by {pattern!r}: expected its parentheses to capture a group in every path; in "
                f"{example.id!r} they capture nothing"
            )
        groups.append(part)
    return with_groups(dataset, groups)


def with_groups(dataset: Dataset, groups: Sequence[str | None]) -> Dataset:
    """The same examples with new groups, one for each example; None for no group."""
    examples = (dataclasses.replace(e, group=g) for e, g in zip(dataset, groups, strict=True))
    return Dataset(tuple(examples), dataset.classes, dataset.name, dataset.skipped)


def joined(dataset: Dataset, together: Iterable[Sequence[int]]) -> Dataset:
    """The same examples, with the rows in each element of `together`, and their previous groups, merged into one.

    A merged group takes the first name, in sorted order, of the user's groups in it; without one, it is named
    "copies of …" after its first id. So a new photo can only change the name of its own group.
    """
    up: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        while (above := up.get(node, node)) != node:
            up[node] = up.get(above, above)
            node = up[node]
        return node

    nodes = [("group", e.group) if e.group is not None else ("id", e.id) for e in dataset]
    for rows in together:
        for row in rows[1:]:
            # "group" sorts before "id": a user's name wins.
            first, second = sorted((top(nodes[rows[0]]), top(nodes[row])))
            up[second] = first
    tops = [top(node) for node in nodes]
    sizes = Counter(tops)
    return with_groups(
        dataset,
        [
            name if kind == "group" else f"copies of {name}" if sizes[kind, name] > 1 else None
            for kind, name in tops
        ],
    )


def group_numbers(dataset: Dataset) -> list[int]:
    """Each example's group as a number from 0, in order of appearance. Each example without a group gets its own."""
    numbers: dict[tuple[str, str], int] = {}
    return [
        numbers.setdefault(("id", e.id) if e.group is None else ("group", e.group), len(numbers))
        for e in dataset
    ]
