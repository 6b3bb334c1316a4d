"""Copies are found and nothing else: planted ones, in pictures that are all alike but for their content."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from topwork.checks import copies as duplicates
from topwork.checks import search
from topwork.checks.copies import NEIGHBOURS, confirmed_pairs, duplicate_groups
from topwork.checks.looks import LOOKED_PX, MEASURES, THUMBNAIL_PX, look, unpacked
from topwork.images.decode import Picture

COUNT = 60


def scene(number: int, side: int = 160) -> Image.Image:
    """Soft blobs and hard edges, different for each number; a frame that all of them share."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side] / side
    pixels = np.full((side, side, 3), random.uniform(60, 190, 3))
    for _ in range(12):
        cx, cy, r = random.uniform(0, 1), random.uniform(0, 1), random.uniform(0.04, 0.25)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        pixels[inside] = random.uniform(20, 235, 3)
    pixels[:8] = pixels[-8:] = 10
    pixels[:, :8] = pixels[:, -8:] = 10
    pixels += random.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cropped(image: Image.Image, share: float, x: float, y: float) -> Image.Image:
    width, height = image.size
    w, h = round(share * width), round(share * height)
    left, top = round(x * (width - w)), round(y * (height - h))
    return image.crop((left, top, left + w, top + h))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "recompressed": lambda i: encoded(i, "JPEG", quality=60),
    "resized": lambda i: encoded(i.resize((100, 100)), "JPEG", quality=85),
    "brighter": lambda i: encoded(ImageEnhance.Brightness(i).enhance(1.15), "JPEG", quality=90),
    "darker": lambda i: encoded(ImageEnhance.Brightness(i).enhance(0.7), "JPEG", quality=90),
    "mirrored": lambda i: encoded(ImageOps.mirror(i), "JPEG", quality=90),
    "cropped": lambda i: encoded(cropped(i, 0.95, 0.3, 0.8), "JPEG", quality=90),
}


def looks_of(files: list[bytes]) -> np.ndarray:
    rows = np.stack([look(Picture(file, LOOKED_PX), file) for file in files])
    return unpacked(rows).thumbnails


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    return [encoded(scene(i)) for i in range(COUNT)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change: str, originals: list[bytes]) -> None:
    changed = [CHANGES[change](scene(i)) for i in range(0, COUNT, 3)]
    thumbnails = looks_of(originals + changed)
    # Features that tell nothing: the thumbnails have to find the pairs.
    features = np.random.default_rng(0).normal(size=(len(thumbnails), 64)).astype(np.float32)
    found = {(a, b) for a, b, _ in confirmed_pairs(features, thumbnails)}
    planted = {(3 * i, COUNT + i) for i in range(len(changed))}
    assert found - planted == set()
    assert len(found) >= 0.9 * len(planted)


def test_features_find_what_thumbnails_do_not(originals: list[bytes]) -> None:
    """A crop of a tenth is too far off for small thumbnails; a network sees that it is alike."""
    crops = [encoded(cropped(scene(i), 0.9, 0.0, 1.0)) for i in range(20)]
    thumbnails = looks_of(originals + crops)
    own = np.random.default_rng(0).normal(size=(COUNT, 64)).astype(np.float32)
    features = np.concatenate([own, own[:20]])
    found = {(a, b) for a, b, _ in confirmed_pairs(features, thumbnails)}
    assert found <= {(i, COUNT + i) for i in range(20)}
    assert len(found) >= 18


def test_like_features_alone_prove_nothing(originals: list[bytes]) -> None:
    features = np.ones((COUNT, 8), np.float32) + np.random.default_rng(0).normal(0, 1e-3, (COUNT, 8))
    assert list(confirmed_pairs(features.astype(np.float32), looks_of(originals))) == []


def test_equal_files_are_exact_groups_and_join_near_ones(originals: list[bytes]) -> None:
    files = [*originals, CHANGES["recompressed"](scene(4))]
    thumbnails = looks_of([*files, files[7], files[4]])
    keys = tuple(bytes([i]) * 32 for i in (*range(len(files)), 7, 4))
    features = np.random.default_rng(0).normal(size=(len(keys), 64)).astype(np.float32)
    groups = {group.rows: group for group in duplicate_groups(keys, features, thumbnails)}
    assert set(groups) == {(7, 61), (4, 60, 62)}
    assert groups[7, 61].exact
    assert groups[7, 61].likeness == 1
    assert not groups[4, 60, 62].exact
    assert 0.9 < groups[4, 60, 62].likeness < 1


def test_flat_pictures_are_no_copies_of_each_other() -> None:
    files = [encoded(Image.new("RGB", (80, 80), (i, i, i))) for i in range(100, 140)]
    features = np.ones((40, 8), np.float32)
    assert list(confirmed_pairs(features, looks_of(files))) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_pictures_are_enough(count: int) -> None:
    files = [encoded(scene(i)) for i in range(count)] + [CHANGES["resized"](scene(0))]
    features = np.random.default_rng(0).normal(size=(count + 1, 8)).astype(np.float32)
    assert {(a, b) for a, b, _ in confirmed_pairs(features, looks_of(files))} == {(0, count)}


def test_a_look_goes_through_the_store_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (LOOKED_PX, LOOKED_PX, 3), np.uint8)
    pixels[:, :50] = 9
    file = encoded(Image.fromarray(pixels))
    row = look(Picture(file, LOOKED_PX), file)
    assert row.shape == (THUMBNAIL_PX**2 + MEASURES,)
    looks = unpacked(row[None])
    means = pixels.reshape(THUMBNAIL_PX, 4, THUMBNAIL_PX, 4, 3).mean(axis=(1, 3))
    assert np.abs(looks.thumbnails[0].astype(float) - means).max() <= 0.5
    assert looks.size_px.tolist() == [[LOOKED_PX, LOOKED_PX]]
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    assert looks.contrast[0] == pytest.approx(grey.std(), rel=1e-3)
    assert looks.dark[0] == pytest.approx(np.percentile(grey, 5), abs=1)
    assert looks.bright[0] == pytest.approx(np.percentile(grey, 95), abs=1)


def test_a_large_file_is_looked_at_as_sharply_when_it_was_decoded_for_a_small_network() -> None:
    scenes = [encoded(scene(i).resize((1600, 1200)), "JPEG", quality=90) for i in range(3)]
    for file in scenes:
        own = look(Picture(file, LOOKED_PX), file)
        assert np.array_equal(look(Picture(file, 32), file), own)
        thumbnail, size = unpacked(own[None]).thumbnails[0], unpacked(own[None]).size_px[0].tolist()
        assert size == [1600, 1200]
        there = unpacked(look(Picture(file, 224), file)[None]).thumbnails[0]
        assert np.abs(there.astype(int) - thumbnail).mean() < 2


def test_blocks_change_nothing(originals: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = looks_of([*originals, *(change(scene(i)) for change in CHANGES.values() for i in (1, 2))])
    features = np.random.default_rng(0).normal(size=(len(thumbnails), 8)).astype(np.float32)
    whole = list(confirmed_pairs(features, thumbnails))
    monkeypatch.setattr(search, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(duplicates, "AT_ONCE", 3)
    parts = list(confirmed_pairs(features, thumbnails))
    assert [pair[:2] for pair in parts] == [pair[:2] for pair in whole]
    assert [pair[2] for pair in parts] == pytest.approx([pair[2] for pair in whole], abs=1e-4)


@pytest.mark.parametrize("least", [-1.0, 0.2, 0.6])
def test_candidates_are_the_nearest_of_all(least: float) -> None:
    """Against a full sort: where many are near enough, where few are, and where none is."""
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = {(a, b) for part in search.neighbours(rows, rows, least, NEIGHBOURS) for a, b in part.tolist()}
    likeness = rows @ rows.T
    nearest = np.argsort(-likeness, axis=1)[:, : NEIGHBOURS + 1]
    assert found == {(a, b) for a in range(300) for b in nearest[a].tolist() if likeness[a, b] >= least}


def test_large_thumbnails_are_not_all_held_at_once() -> None:
    random = np.random.default_rng(0)
    thumbnails = random.integers(0, 256, (2000, THUMBNAIL_PX, THUMBNAIL_PX, 3), np.uint8)
    features = random.normal(size=(2000, 64)).astype(np.float32)
    tracemalloc.start()
    assert list(confirmed_pairs(features, thumbnails)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # As float32 they would be 55 MB at one size alone; the 1,000 that what is common is learnt from are 28 MB.
    assert peak < 115_000_000


def icon(number: int) -> Image.Image:
    """A few coloured pieces of 64 x 64 pixels on white, with sharp edges."""
    random = np.random.default_rng(number)
    pixels = np.full((64, 64, 3), 255, np.uint8)
    for _ in range(14):
        x, y, w, h = *random.integers(4, 50, 2), *random.integers(3, 14, 2)
        pixels[y : y + h, x : x + w] = random.choice([0, 90, 200, 255], 3)
    return Image.fromarray(pixels)


def recoloured(image: Image.Image) -> Image.Image:
    """The same shapes in other colours: another icon, as the flags of two countries."""
    return Image.fromarray(np.ascontiguousarray(np.asarray(image)[:, :, [1, 2, 0]]))


def test_an_icon_recompressed_is_a_copy_and_recoloured_it_is_not() -> None:
    """JPEG halves an icon's colours, and its edges are all that it has."""
    icons = [icon(i) for i in range(COUNT)]
    files = [encoded(i) for i in icons]
    files += [encoded(i, "JPEG", quality=75) for i in icons[:20]] + [
        encoded(recoloured(i)) for i in icons[20:]
    ]
    features = np.random.default_rng(0).normal(size=(len(files), 64)).astype(np.float32)
    found = {(a, b) for a, b, _ in confirmed_pairs(features, looks_of(files))}
    planted = {(i, COUNT + i) for i in range(20)}
    assert found <= planted
    assert len(found) >= 19
