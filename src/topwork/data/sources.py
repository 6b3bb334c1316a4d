"""`load(source)`: one door for folders, manifests, archives, tfds: and hf:; `load_images` for pictures alone."""

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
    """Read the labels and places of a source's images, without opening one.

    A folder with one sub-folder a class, or with train / val / test folders of such; a manifest (CSV,
    TSV, JSONL, Parquet: path,label[,split][,group][,weight]); a zip or tar of either, read in place;
    tfds:NAME[:SPLIT] (TensorFlow Datasets) and hf:NAME[:SPLIT] (Hugging Face datasets).
    A folder's order is by class and id, a manifest's is its own.

    `group_by` says what a split must keep on one side: a column of the manifest, or a pattern whose brackets find
    the group in an example's id (see `grouping.group_by_pattern`).

    Raises `InputError` where the source is none of these, has no such column, or as `layout.by_folders`,
    `manifest.read_manifest`, `archive.list_archive`, `tfds.load_tfds` and `huggingface.load_hf` do.
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
    """Gather images without labels, in the order given: files, folders (all that is in them), globs.

    A file that is named is taken whatever its ending; in a folder or by a glob, image files are. An id
    is the path as it was given or found; an image met again is taken once. What is missing is in
    `skipped`, and so is a folder or a glob that gives nothing.
    """
    names = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    examples: dict[str, Example] = {}
    problems: list[Problem] = []

    def add(id: str, image: ImageSource) -> None:
        examples.setdefault(id, Example(id, image))

    def add_folder(folder: str) -> None:
        try:
            listing = walk(folder)
        except OSError as error:
            problems.append(Problem(readable(folder), f"the folder can't be read: {error.strerror}"))
            return
        problems.extend(Problem(f"{listing.root}/{p.id}", p.reason) for p in listing.problems)
        # Sorted by folder, then name, as a person who looks into the folders would meet them.
        for name in sorted(listing.files):
            id = (PurePosixPath(listing.root.replace(os.sep, "/")) / name).as_posix()
            if is_image(name):
                add(id, listing.files[name])
            else:
                problems.append(not_an_image(id))
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
                    # "**" names every folder and what is in it: those files come by themselves.
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
            f"--group-by {column!r}: expected a pattern on the path, with brackets round the group, such as "
            f"'(.*)_[0-9]+'; a column's name goes with a manifest, which {dataset.name} is not"
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
    """Look through the one folder that an archive's content is often wrapped in."""
    tops = {name.partition("/")[0] for name in listing.folders}
    beside = [name for name in listing.files if "/" not in name]
    if len(tops) != 1 or any(is_image(name) or suffix_of(name) in MANIFEST_SUFFIXES for name in beside):
        return listing
    top = next(iter(tops)) + "/"
    inside = {name.removeprefix(top): image for name, image in listing.files.items() if name.startswith(top)}
    folders = tuple(name.removeprefix(top) for name in listing.folders if name.startswith(top))
    if not folders and not any(suffix_of(name) in MANIFEST_SUFFIXES for name in inside):
        return listing  # a lone class folder: said so is clearer than "no sub-folders"
    problems = listing.problems + tuple(not_an_image(name) for name in beside)
    return Listing(listing.root, inside, folders, problems)


def _manifest_in(listing: Listing) -> str | None:
    """The table at the top that is the manifest: one called so, or the only one that reads as one."""
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
    except ImageError as error:  # the reason alone: it needs the name
        raise InputError(f"{listing.root}!{name}: {error}") from None


def _finder(base: Path) -> Callable[[str], tuple[str, ImageSource | None]]:
    root = base.absolute()  # so that an id is the same from wherever the manifest is named

    def find(name: str) -> tuple[str, ImageSource | None]:
        for candidate in dict.fromkeys((name, name.replace("\\", "/"))):  # a manifest made on Windows
            full = base / candidate
            try:
                if full.is_file():
                    inside = Path(candidate).is_relative_to(root)
                    id = Path(candidate).relative_to(root).as_posix() if inside else candidate
                    return readable(normal(id)), FileImage(str(full))
            except (OSError, ValueError):  # a name too long, or with a NUL: no file has it
                continue
        return normal(name), None

    return find


def _no_such(path: Path) -> str:
    """What to say of a path that leads nowhere: the first part that is missing, and the nearest name."""
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
