"""`load(source)` for folders, manifests, archives, `tfds:` and `hf:`; `load_images` for unlabelled images."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from topwork.data.archive import ARCHIVE_SUFFIXES, is_archive, list_archive
from topwork.data.dataset import Dataset, Example, FileImage, ImageSource, Problem, readable
from topwork.data.folder import walk
from topwork.data.groups import group_by_pattern, is_pattern
from topwork.data.layout import (
    MANIFEST_SUFFIXES,
    Listing,
    by_folders,
    is_image,
    is_litter,
    not_an_image,
    suffix_of,
)
from topwork.data.manifest import GROUP, is_manifest, normal, read_manifest
from topwork.errors import ImageError, InputError


def load(source: str | os.PathLike[str], *, group_by: str | None = None) -> Dataset:
    """Read a source's labels and locate its images, without opening them.

    Args:
        source: one of

            - a folder with one sub-folder per class, or with train, val and test folders that contain them;
            - a manifest (CSV, TSV, JSONL, Parquet) with path,label[,split][,group][,weight];
            - a zip or tar of either, read in place;
            - `tfds:NAME[:SPLIT]` (TensorFlow Datasets) or `hf:NAME[:SPLIT]` (Hugging Face datasets).
        group_by: which examples a split must keep on one side: a column of the manifest, or a regular expression
            whose parentheses capture the group in an example's id (see `groups.group_by_pattern`).

    Returns:
        The dataset. A folder is sorted by class and id; a manifest keeps its order.

    Raises:
        InputError: the source is none of these, or has no such column; and as in `layout.by_folders`,
            `manifest.read_manifest`, `archive.list_archive`, `tfds.load_tfds` and `huggingface.load_hf`.
    """
    name = os.fspath(source)
    if not isinstance(name, str) or not name:
        raise InputError(f"expected the path of a folder, a manifest or an archive; got {name!r}")
    if group_by is None:
        return _load(name, GROUP)
    if is_pattern(group_by):
        return group_by_pattern(_load(name, GROUP), group_by)
    return _load(name, group_by)


def _load(name: str, column: str) -> Dataset:
    if name.startswith("tfds:"):
        from topwork.data.tfds import load_tfds

        return _without_columns(load_tfds(name), column)
    if name.startswith("hf:"):
        from topwork.data.huggingface import load_hf

        return _without_columns(load_hf(name), column)
    if "://" in name:
        raise InputError(f"expected a path on this machine; got {name!r}: download it first")
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return _without_columns(by_folders(walk(str(path))), column)
        if not path.exists():
            raise InputError(_no_such(path))
        if suffix_of(path.name) in MANIFEST_SUFFIXES:
            return read_manifest(path.read_bytes(), readable(str(path)), _finder(path.parent), group=column)
        if is_archive(path.name):
            return _load_archive(str(path), column)
    except OSError as error:
        raise InputError(f"{readable(name)} can't be read: {error.strerror or error}") from None
    known = ", ".join(sorted(MANIFEST_SUFFIXES) + list(ARCHIVE_SUFFIXES))
    raise InputError(f"expected a folder, or a file that ends in one of {known}; got {readable(name)}")


def load_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Dataset:
    """Collect unlabelled images from files, folders (recursively) and glob patterns, in the order given.

    Files given by name are taken whatever their extension; from folders and patterns, only image files are. An
    example's id is its path as given or found. Each image is taken once. Missing files are listed in `skipped`, as
    are folders and patterns without images.
    """
    names = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    examples: dict[str, Example] = {}
    problems: list[Problem] = []

    def add(image_id: str, image: ImageSource) -> None:
        examples.setdefault(image_id, Example(image_id, image))

    def add_folder(folder: str) -> None:
        try:
            listing = walk(folder)
        except OSError as error:
            problems.append(Problem(readable(folder), f"the folder can't be read: {error.strerror}"))
            return
        problems.extend(Problem(f"{listing.root}/{p.id}", p.reason) for p in listing.problems)
        # Sorted by path.
        for name in sorted(listing.files):
            image_id = (PurePosixPath(listing.root.replace(os.sep, "/")) / name).as_posix()
            if is_image(name):
                add(image_id, listing.files[name])
            else:
                problems.append(not_an_image(image_id))
        if not any(map(is_image, listing.files)):
            problems.append(Problem(listing.root, "no images in this folder"))

    for given in names:
        path = os.path.expanduser(os.fspath(given))  # noqa: PTH111 (a Path would rewrite what was given)
        if Path(path).is_dir():
            add_folder(path)
        elif Path(path).exists():
            add(readable(path), FileImage(path))
        elif glob.has_magic(path):
            found = [p for p in sorted(glob.glob(path, recursive=True)) if not is_litter(Path(p).name)]  # noqa: PTH207
            for p in found:
                if Path(p).is_dir():
                    # "**" matches every folder and every file in it, so the files are matched anyway.
                    if "**" not in path:
                        add_folder(p)
                elif is_image(p):
                    add(readable(p), FileImage(p))
                else:
                    problems.append(not_an_image(readable(p)))
            if not found:
                problems.append(Problem(readable(path), "no file matches this pattern"))
        else:
            problems.append(Problem(readable(path), "no such file"))
    name = readable(os.fspath(names[0])) if len(names) == 1 else f"{len(names)} paths"
    return Dataset(tuple(examples.values()), (), name, tuple(dict.fromkeys(problems)))


def _without_columns(dataset: Dataset, column: str) -> Dataset:
    if column != GROUP:
        raise InputError(
            f"--group-by {column!r}: expected a regular expression for the path, with the group in parentheses, such "
            f"as '(.*)_[0-9]+'; a column name needs a manifest, which {dataset.name} is not"
        )
    return dataset


def _load_archive(path: str, column: str) -> Dataset:
    listing = _below_wrapper(list_archive(path))
    manifest = _manifest_in(listing)
    if manifest is None:
        return _without_columns(by_folders(listing), column)

    def find(name: str) -> tuple[str, ImageSource | None]:
        for candidate in dict.fromkeys((normal(name), normal(name.replace("\\", "/")))):
            if candidate in listing.files:
                return candidate, listing.files[candidate]
        return normal(name), None

    dataset = read_manifest(_table(listing, manifest), f"{listing.root}!{manifest}", find, group=column)
    return Dataset(dataset.examples, dataset.classes, listing.root, dataset.skipped + listing.problems)


def _below_wrapper(listing: Listing) -> Listing:
    """The listing inside the single top-level folder that many archives have."""
    tops = {name.partition("/")[0] for name in listing.folders}
    beside = [name for name in listing.files if "/" not in name]
    if len(tops) != 1 or any(is_image(name) or suffix_of(name) in MANIFEST_SUFFIXES for name in beside):
        return listing
    top = next(iter(tops)) + "/"
    inside = {name.removeprefix(top): image for name, image in listing.files.items() if name.startswith(top)}
    folders = tuple(name.removeprefix(top) for name in listing.folders if name.startswith(top))
    if not folders and not any(suffix_of(name) in MANIFEST_SUFFIXES for name in inside):
        return listing  # a single class folder: that message is clearer than "no sub-folders"
    problems = listing.problems + tuple(not_an_image(name) for name in beside)
    return Listing(listing.root, inside, folders, problems)


def _manifest_in(listing: Listing) -> str | None:
    """The manifest at the top level: a table called manifest or labels, else the only table that is valid as one."""
    tables = sorted(n for n in listing.files if "/" not in n and suffix_of(n) in MANIFEST_SUFFIXES)
    named = [name for name in tables if PurePosixPath(name).stem.casefold() in ("manifest", "labels")]
    if len(named) > 1:
        raise InputError(f"expected one manifest in {listing.root}; got {', '.join(named)}: keep one")
    if named:
        return named[0]
    if len(tables) == 1 and is_manifest(_table(listing, tables[0]), tables[0]):
        return tables[0]
    return None


def _table(listing: Listing, name: str) -> bytes:
    try:
        return listing.files[name].read()
    except ImageError as error:  # its message is only the reason, without the file
        raise InputError(f"{listing.root}!{name}: {error}") from None


def _finder(base: Path) -> Callable[[str], tuple[str, ImageSource | None]]:
    root = base.absolute()  # ids must not depend on the working directory

    def find(name: str) -> tuple[str, ImageSource | None]:
        for candidate in dict.fromkeys((name, name.replace("\\", "/"))):  # a manifest made on Windows
            full = base / candidate
            try:
                if full.is_file():
                    inside = Path(candidate).is_relative_to(root)
                    image_id = Path(candidate).relative_to(root).as_posix() if inside else candidate
                    return readable(normal(image_id)), FileImage(str(full))
            except (OSError, ValueError):  # the name is too long or contains a NUL: there is no such file
                continue
        return normal(name), None

    return find


def _no_such(path: Path) -> str:
    """The message for a path that doesn't exist: its first missing part, and the closest existing name."""
    missing = path
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    try:
        siblings = [p.name for p in missing.parent.iterdir() if not is_litter(p.name)]
    except OSError:
        siblings = []
    near = difflib.get_close_matches(missing.name, siblings, n=1)
    hint = f"; did you mean {readable(str(missing.parent / near[0]))}?" if near else ""
    return f"no such file or folder: {readable(str(missing))}{hint}"
