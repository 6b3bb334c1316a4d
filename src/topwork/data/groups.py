"""Groups: examples that a split must keep on one side, because they show one thing."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from topwork.data.dataset import Dataset
from topwork.errors import InputError


def is_pattern(group_by: str) -> bool:
    """Whether `--group-by` is a pattern on the path (it has brackets round what names the group), or a column."""
    return "(" in group_by


def group_by_pattern(dataset: Dataset, pattern: str) -> Dataset:
    r"""Each example's group is what the pattern's brackets find in its id, as Python's `re.search` reads it.

    Raises:
        InputError: not a regular expression, or it finds nothing in some id.

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
                f"--group-by {pattern!r}: expected its brackets to find the group in every path; in {example.id!r} "
                "they find nothing"
            )
        groups.append(part)
    return with_groups(dataset, groups)


def with_groups(dataset: Dataset, groups: Sequence[str | None]) -> Dataset:
    """The same examples with other groups, one each; None for none."""
    examples = (dataclasses.replace(e, group=g) for e, g in zip(dataset, groups, strict=True))
    return Dataset(tuple(examples), dataset.classes, dataset.name, dataset.skipped)


def joined(dataset: Dataset, together: Iterable[Sequence[int]]) -> Dataset:
    """The same examples, with the rows of each of `together` in one group, along with the groups they were in.

    A group made of rows alone is named for the first id among them ("copies of …"); one that takes in groups of the
    user's, for the first of their names. So adding a photo changes the name of a group only if it is in it.
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
    """Each example's group as a number from 0, in the order they appear; one without a group is alone in its own."""
    numbers: dict[tuple[str, str], int] = {}
    return [
        numbers.setdefault(("id", e.id) if e.group is None else ("group", e.group), len(numbers))
        for e in dataset
    ]
