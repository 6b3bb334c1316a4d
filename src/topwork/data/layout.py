"""Labels from folder names: class folders, or train, val and test folders that contain class folders."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from topwork.data.dataset import Dataset, Example, ImageSource, Problem, class_names
from topwork.errors import InputError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"},
)
MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"})


@dataclass(frozen=True, slots=True)
class Listing:
    """The files and folders of a source. Names are relative to its root, with "/"; system files are left out."""

    root: str  # the name to display
    files: dict[str, ImageSource]
    folders: tuple[str, ...]  # needed to report empty class folders
    problems: tuple[Problem, ...] = ()


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden or a system file such as Thumbs.db."""
    return name.startswith(".") or name.casefold() in LITTER


def suffix_of(name: str) -> str:
    """The file extension in lower case, with its dot; "" if there is none."""
    return PurePosixPath(name).suffix.lower()


def is_image(name: str) -> bool:
    """Whether the file name has an image's extension."""
    return suffix_of(name) in IMAGE_SUFFIXES


def not_an_image(name: str) -> Problem:
    """The problem for a file whose extension is not an image's."""
    return Problem(name, f"not an image file ({suffix_of(name) or 'no extension'})")


def by_folders(listing: Listing) -> Dataset:
    """Label each image by its class folder; images may be nested deeper in it.

    The top-level folders are the classes. If they are called train, val (valid, validation, dev) and test, with at
    least train, they are splits, and the folders in them are the classes. Examples are sorted by class, then by id.

    Raises `InputError` if there are no class folders, no images, fewer than two classes, or a class that is not in
    train.
    """
    root, names = listing.root, [*listing.files, *(folder + "/" for folder in listing.folders)]
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    given = {top.casefold() for top in tops} <= SPLIT_FOLDERS.keys() and "train" in map(str.casefold, tops)
    depth = 2 if given else 1  # least number of folders above an image

    examples, problems = [], list(listing.problems)
    empty = {folder for folder in listing.folders if folder.count("/") == depth - 1}
    for name, image in listing.files.items():
        parts = name.split("/")
        if not is_image(name):
            problems.append(not_an_image(name))
        elif len(parts) <= depth:
            problems.append(Problem(name, "not in a class folder"))
        else:
            split = SPLIT_FOLDERS[parts[0].casefold()] if given else None
            examples.append(Example(name, image, parts[depth - 1], split=split))
            empty.discard("/".join(parts[:depth]))
    problems += [Problem(folder + "/", "a class folder without images") for folder in empty]

    if not examples:
        raise InputError(_no_class_folders(listing, tops))
    examples.sort(key=lambda e: (e.label, e.id))
    if given:
        _check_taught(root, examples)
    classes = class_names(examples)
    check_classes(classes, root, hint=_deeper(listing, classes[0]) if not given else "")
    return Dataset(tuple(examples), classes, root, tuple(sorted(problems, key=lambda p: p.id)))


def check_classes(classes: tuple[str, ...], root: str, *, hint: str = "") -> None:
    """Raise `InputError` if there is only one class."""
    if len(classes) < 2:
        raise InputError(f"expected at least two classes in {root}; got only {classes[0]!r}{hint}")


def _no_class_folders(listing: Listing, tops: set[str]) -> str:
    root = listing.root
    images = sum(map(is_image, listing.files))
    wanted = f"expected one folder per class, such as {root}/cat/1.jpg and {root}/dog/2.jpg; got "
    if not images:
        endings = Counter(suffix_of(name) or "no extension" for name in listing.files)
        others = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(3))
        return wanted + "no images" + (f" ({others})" if others else "") + _manifest_hint(listing)
    folders = "no sub-folders" if not tops else "none in a class folder"
    mend = _manifest_hint(listing) or ": put them into folders, or list them in a manifest (path,label)"
    return wanted + f"{images} images and {folders}" + mend


def _manifest_hint(listing: Listing) -> str:
    for name in sorted(listing.files):
        if "/" not in name and suffix_of(name) in MANIFEST_SUFFIXES:
            return f": if {name} lists the labels, give that file"
    return ""


def _deeper(listing: Listing, only: str) -> str:
    inside = {folder for folder in listing.folders if folder.startswith(only + "/")}
    if inside:
        return f": if the folders in {only}/ are the classes, give that folder"
    return _manifest_hint(listing) or ": add a folder for each other class"


def _check_taught(root: str, examples: list[Example]) -> None:
    taught = {e.label for e in examples if e.split == "train"}
    for e in examples:
        if e.label not in taught:
            raise InputError(
                f"class {e.label!r} of {root} is in {e.split} but not in train, such as {e.id}: "
                "add images of it to train, or remove it"
            )
