from __future__ import annotations

import os
from pathlib import Path

import pytest

from photos import finished, start_python
from topwork.data import listing
from topwork.data.dataset import Problem
from topwork.data.listing import in_order, list_images
from topwork.data.sources import load_images
from topwork.jobs.predict import once
from topwork.storage.digests import Digests


def tree(root: Path) -> Path:
    """Folders whose names sort otherwise than the paths in them, links, and what is no image."""
    for name in (
        "b/1.png",
        "b-c/1.png",
        "b.png",
        "a/z.jpg",
        "a/deep/er/1.gif",
        ".hidden/1.png",
        "a/notes.txt",
        "Z.PNG",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "empty").mkdir()
    (root / "loop").symlink_to(root)
    (root / "twice").symlink_to(root / "b")
    (root / "gone.png").symlink_to(root / "nothing.png")
    (root / "linked.png").symlink_to(root / "b.png")
    os.mkfifo(root / "pipe.png")
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "1.png").write_bytes(b"")
    (root / "outside").symlink_to(root.parent / "outside")
    return root


def test_the_listing_finds_what_load_images_does(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    given = [
        str(root),
        *(f"{root}/{pattern}" for pattern in ("*.png", "**/*.*", "*", "none", "*.none", "empty")),
    ]
    for paths in (*([path] for path in given), [f"{root}/a", str(root), str(root)]):
        expected, found = load_images(paths), list(once(list_images(paths)))
        assert [item for item in found if item in expected.examples] == list(expected.examples)
        assert {item for item in found if item not in expected.examples} == set(expected.skipped)
        assert list(once(list_images(paths))) == found


def test_a_folder_that_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    root = tree(tmp_path / "tree")
    monkeypatch.setattr(os, "scandir", refuse)
    reasons = {item.id: item.reason for item in list_images([str(root)]) if hasattr(item, "reason")}
    assert reasons[f"{root}/a/"] == "the folder can't be read: Permission denied"
    assert list(list_images([f"{root}/a"])) == [
        Problem(f"{root}/a/", "the folder can't be read: Permission denied")
    ]


def test_order_beyond_what_is_sorted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number * 7919 % 1000}\n\udcff{'/' * (number % 2)}" for number in range(1000)]
    for at_once in (1, 7, 1000, 1001):
        monkeypatch.setattr(listing, "SORTED_AT_ONCE", at_once if at_once > 1 else 100)
        assert list(in_order(names)) == sorted(names)
    assert list(in_order([])) == []


def test_no_room_to_sort() -> None:
    code = (
        "import resource, sys\nfrom topwork.data import listing\nlisting.SORTED_AT_ONCE = 1000\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    list(listing.in_order(str(n) for n in range(5000)))\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    assert (
        "TopworkError a large folder is sorted with temporary files, but " in finished(start_python(code))[1]
    )


def test_digests_know_what_they_have_met() -> None:
    met, names = Digests(), [f"photos/{number}.jpg" for number in range(200_000)]
    assert all(met.add(name) for name in names)
    assert len(met) == len(names)
    assert not any(met.add(name) for name in names[::17])
    assert not any(f"{name}x" in met for name in names[::17])
    (pages,), (page,) = (met._table.execute(f"PRAGMA {p}").fetchone() for p in ("page_count", "page_size"))
    assert 16 * len(names) <= pages * page <= 32 * len(names)


def test_memory_does_not_grow_with_a_folder(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom topwork.data import listing\nfrom topwork.jobs.predict import once\n"
        "listing.SORTED_AT_ONCE = 1000\n"
        "print(sum(1 for _ in once(listing.list_images([sys.argv[1]]))))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{'a long name ' * 10}{number}.png").touch()
        _, out, _ = finished(start_python(code, folder))
        listed, rss_kib = map(int, out.split())
        assert listed == count
        return rss_kib

    # A list of the names alone would be 18,000 x 250 bytes, of Examples twice that; digests are 18,000 x 100 at most.
    assert peak(20_000) - peak(2_000) < 4_000
