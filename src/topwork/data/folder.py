"""List all files below a folder on disk, following links without loops."""

from __future__ import annotations

import os
from pathlib import Path

from topwork.data.dataset import FileImage, ImageSource, Problem, readable
from topwork.data.layout import Listing, is_litter


def walk(root: str) -> Listing:
    """List every file and folder below `root`, sorted by name. Files are not opened.

    Links to files are followed. A link to a folder is followed unless that folder is read anyway (a loop, a
    second name for a class); then the link is a problem, as are broken links, special files, and folders that
    can't be opened.

    Raises `OSError` if `root` itself can't be opened.
    """
    files: dict[str, ImageSource] = {}
    folders: list[str] = []
    problems: list[Problem] = []
    seen = _Reached(Path(root).resolve())
    pending = [(root, "")]  # a stack instead of recursion, which has a depth limit
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise
            problems.append(Problem(readable(prefix), f"the folder can't be read: {error.strerror}"))
            continue
        below = []
        for entry in entries:
            if is_litter(entry.name):
                continue
            name = readable(prefix + entry.name)
            try:
                if entry.is_dir():
                    if entry.is_symlink() and not seen.add(Path(entry.path).resolve()):
                        problems.append(Problem(name + "/", "a link to a folder that is read already"))
                    else:
                        folders.append(name)
                        below.append((entry.path, prefix + entry.name + "/"))
                elif entry.is_file():
                    files[name] = FileImage(entry.path)
                elif entry.is_symlink():
                    problems.append(Problem(name, "a broken link"))
                else:
                    problems.append(Problem(name, "not a regular file"))
            except (
                OSError,
                RuntimeError,
            ) as error:  # `resolve` raises RuntimeError for loops before Python 3.13
                problems.append(Problem(name, f"can't be read: {getattr(error, 'strerror', None) or error}"))
        pending += reversed(below)
    return Listing(readable(root), files, tuple(folders), tuple(problems))


class _Reached:
    """The folders that are read with all their content. None is inside another: no loops, nothing read twice."""

    def __init__(self, root: Path) -> None:
        self._tops = {root}
        self._above = set(root.parents)

    def add(self, folder: Path) -> bool:
        """Add a folder unless it equals, contains or is inside one of these. Returns whether it was added."""
        overlaps = folder in self._above or not self._tops.isdisjoint((folder, *folder.parents))
        if not overlaps:
            self._tops.add(folder)
            self._above.update(folder.parents)
        return not overlaps
