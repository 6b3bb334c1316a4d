"""What `tfds:` and `hf:` datasets have in common: parsing the source, choosing splits, naming images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from topwork.data.dataset import Dataset, Example, ImageSource, Problem, class_names, readable
from topwork.data.layout import SPLIT_FOLDERS, check_classes
from topwork.errors import InputError, one_of

# A drive letter and a version (`:1.0.0`) also contain a colon.
_TEXT = re.compile(
    r"(?P<place>(?:[A-Za-z]:[\\/])?[^:]+(?::(?:\d[\w.*]*|experimental_latest))?)(?::(?P<split>[^:].*))?"
)


@dataclass(frozen=True, slots=True)
class Found:
    """One example as read from its source."""

    split: str  # as the source calls it
    number: int  # index in that split, from 0
    label: str | None
    file_name: str | None
    image: ImageSource


def parse(source: str, prefix: str) -> tuple[str, str | None]:
    """`PREFIX:PLACE[:SPLIT]` → place and split. Raises `InputError` for anything else."""
    found = _TEXT.fullmatch(source.removeprefix(prefix))
    if found is None:
        raise InputError(f"expected {prefix}NAME or {prefix}NAME:SPLIT; got {source!r}")
    return found["place"], found["split"]


def is_path(place: str) -> bool:
    """Whether `place` is a path rather than a name."""
    return (
        place.startswith(("/", "./", "../", "~", "\\", ".\\"))
        or place[1:3] in (":\\", ":/")
        or place in (".", "..")
    )


def marks(names: Sequence[str], source: str) -> tuple[dict[str, str | None], list[Problem]]:
    """The source's splits to read, each with Topwork's name for it, and the others as problems.

    A single split is mapped to None, so that Topwork makes its own splits. Raises `InputError` if there are several
    splits and none is called train, validation or test.
    """
    if len(names) == 1:
        return {names[0]: None}, []
    known: dict[str, str | None] = {
        name: SPLIT_FOLDERS[name.casefold()] for name in names if name.casefold() in SPLIT_FOLDERS
    }
    if not known:
        raise InputError(
            f"expected splits called train, validation or test in {source}; got {', '.join(names)}: choose one, "
            f"such as {source}:{names[0]}"
        )
    others = [
        Problem(name, f"the split {name!r} is neither train, validation nor test: {source}:{name} reads it")
        for name in names
        if name not in known
    ]
    return (known if len(known) > 1 else dict.fromkeys(known)), others


def choose(names: Sequence[str], wanted: str, source: str) -> None:
    """Raise `InputError` if the source has no split of that name."""
    if wanted not in names:
        raise InputError(f"{source}: {one_of(wanted, names, what='split')}")


def gather(
    source: str,
    found: Sequence[Found],
    marked: dict[str, str | None],
    names: Iterable[str],
    problems: Iterable[Problem] = (),
) -> Dataset:
    """The dataset with the examples `found`, in order. `names`: the classes that the source declares.

    An id is `split/file name` if every example of the split has a unique file name, else `split/000123`. Examples
    without a label are left out and listed in `skipped`, as are classes without images.

    Raises `InputError` if there is no labelled image, or only one class.
    """
    named = _splits_with_file_names(found)
    examples, left_out = [], list(problems)
    for f in found:
        image_id = f"{f.split}/{f.file_name if f.split in named else f'{f.number:06}'}"
        if f.label is None:
            left_out.append(Problem(image_id, "no label"))
        else:
            examples.append(Example(image_id, f.image, f.label, split=marked[f.split]))
    if not examples:
        raise InputError(
            f"expected images with labels in {source}; got {len(found)} images, none with a label"
        )
    classes = class_names(examples)
    check_classes(classes, source)
    left_out += [Problem(name, "a class without images") for name in sorted(set(names) - set(classes))]
    return Dataset(tuple(examples), classes, readable(source), tuple(left_out))


def _splits_with_file_names(found: Sequence[Found]) -> set[str]:
    sizes = Counter(f.split for f in found)
    different = Counter(split for split, name in {(f.split, f.file_name) for f in found} if name)
    return {split for split in sizes if different[split] == sizes[split]}
