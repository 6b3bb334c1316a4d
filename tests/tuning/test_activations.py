"""What a prefix gives, stored for every view: right, resumed after a kill, and never a half-written surprise."""

from __future__ import annotations

import dataclasses
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from exact import in_f32
from photos import finished, start_python, write_shapes
from topwork.backbones.backbone import Backbone
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.errors import InputError, TopworkError
from topwork.graphs.cuts import Cut, find_cuts, split_at
from topwork.images.augment import view
from topwork.images.decode import decode
from topwork.images.framing import Framing
from topwork.recipe import AugmentRecipe
from topwork.tuning.activations import Activations, store_activations

AUGMENT = AugmentRecipe(flips="both", crop=0.8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(write_shapes(tmp_path_factory.mktemp("photos"), 4))


@pytest.fixture(scope="module")
def cut(backbone: Backbone) -> Cut:
    return find_cuts(backbone.graph, backbone.facts.blocks)[8]


@pytest.fixture(scope="module")
def prefix(backbone: Backbone, cut: Cut) -> ov.Model:
    return split_at(backbone.graph, cut)[0]


def store(dataset: Dataset, prefix: ov.Model, folder: Path, **other: Any) -> Activations:
    options: dict[str, Any] = {
        "size_px": 32,
        "fit": Framing("stretch"),
        "precision": "f32",
        "recipe": AUGMENT,
        "views": 3,
        "seed": 1,
        "budget_bytes": 10**9,
        "progress": lambda n: None,
    }
    return store_activations(dataset, prefix, folder=folder, **options | other)


def test_they_are_what_the_prefix_gives_for_each_view(
    photos: Dataset, prefix: ov.Model, cut: Cut, tmp_path: Path
) -> None:
    import hashlib

    found = store(photos, prefix, tmp_path / "a")
    compiled = in_f32(prefix)
    rows, views = np.array([0, 7, 11, 7]), np.array([0, 2, 1, 0])
    activation, early = found.batch(rows, views)
    assert (activation.dtype, activation.shape) == (np.float16, (4, *cut.shape))
    assert (early.dtype, early.shape) == (np.float32, (4, cut.early))
    for i, (row, number) in enumerate(zip(rows, views, strict=True)):
        data = photos[int(row)].image.read()
        key = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        pixels = view(decode(data, 32, fit="stretch"), AUGMENT, int(number), (1, key))
        given = compiled(pixels[None])
        np.testing.assert_allclose(activation[i], given["activation"][0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(early[i], given["early"][0], rtol=1e-6)


def test_a_cut_with_no_early_features(photos: Dataset, backbone: Backbone, tmp_path: Path) -> None:
    first = find_cuts(backbone.graph, backbone.facts.blocks)[0]
    found = store(photos.take(2), split_at(backbone.graph, first)[0], tmp_path / "a", views=1)
    activation, early = found.batch(np.array([1]), np.array([0]))
    assert activation.shape == (1, *first.shape)
    assert early.shape == (1, 0)
    assert np.abs(activation).max() > 0


def test_what_is_there_is_not_computed_again(photos: Dataset, prefix: ov.Model, tmp_path: Path) -> None:
    told: list[int] = []
    first = store(photos, prefix, tmp_path / "a", progress=told.append)
    assert sum(told) == len(photos)
    before = first.activation.tobytes()
    told.clear()
    again = store(photos, prefix, tmp_path / "a", progress=told.append)
    assert told == [len(photos)]  # at once
    assert again.activation.tobytes() == before


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"views": 2}, {"recipe": AugmentRecipe()}, {"fit": Framing("crop")}]
)
def test_other_settings_begin_anew(
    other: dict[str, Any], photos: Dataset, prefix: ov.Model, tmp_path: Path
) -> None:
    store(photos, prefix, tmp_path / "a")
    found = store(photos, prefix, tmp_path / "a", **other)
    fresh = store(photos, prefix, tmp_path / "b", **other)
    assert found.activation.tobytes() == fresh.activation.tobytes()


def test_a_damaged_file_begins_anew(photos: Dataset, prefix: ov.Model, tmp_path: Path) -> None:
    wanted = store(photos, prefix, tmp_path / "a").activation.tobytes()
    (tmp_path / "a" / "activations").write_bytes(b"short")
    assert store(photos, prefix, tmp_path / "a").activation.tobytes() == wanted
    (tmp_path / "a" / "about.json").write_text("{")
    assert store(photos, prefix, tmp_path / "a").activation.tobytes() == wanted


def test_more_than_the_budget(photos: Dataset, prefix: ov.Model, tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"activations of 12 images in 3 views take \d\.\d GB; 1e-06 GB are allowed: use fewer",
    ):
        store(photos, prefix, tmp_path / "a", budget_bytes=1000)
    assert not (tmp_path / "a").exists()


def test_a_picture_that_is_gone(photos: Dataset, prefix: ov.Model, tmp_path: Path) -> None:
    lost = dataclasses.replace(
        photos[3], image=dataclasses.replace(photos[3].image, path=str(tmp_path / "no.png"))
    )
    some = Dataset((photos[0], lost), photos.classes, "some")
    with pytest.raises(
        TopworkError, match=r"no\.png: can no longer be read \(.*\); repair it, or train again"
    ):
        store(some, prefix, tmp_path / "a")


def test_values_too_large_for_half_precision(photos: Dataset, tmp_path: Path) -> None:
    from openvino import opset13 as op

    image = op.parameter([1, 32, 32, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    large = op.result(op.multiply(op.convert(image, ov.Type.f32), op.constant(np.float32(1000))))
    large.output(0).set_names({"activation"})
    with pytest.raises(TopworkError, match="not finite or too large for half precision: choose another cut"):
        store(photos, ov.Model([large], [image]), tmp_path / "a")


PROGRAM = """
import sys
from pathlib import Path
from topwork.backbones.backbone import load_backbone
from topwork.data.sources import load
from topwork.errors import TopworkError
from topwork.images.framing import Framing
from topwork.recipe import AugmentRecipe
from topwork.tuning import activations
from topwork.graphs.cuts import find_cuts, split_at

photos, folder, sync, limit = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
activations.SYNC_S = sync
backbone = load_backbone("efficientnet-lite0", size_px=32, precision="f32")
prefix = split_at(backbone.graph, find_cuts(backbone.graph, backbone.facts.blocks)[8])[0]
if limit:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    activations.store_activations(
        load(photos), prefix, size_px=32, fit=Framing("stretch"), precision="f32",
        recipe=AugmentRecipe(flips="both", crop=0.8), views=3, seed=1, folder=folder, budget_bytes=10**9,
        progress=lambda n: print(n, flush=True),
    )
except TopworkError as error:
    print(f"ERROR {error}")
"""


def test_killed_it_goes_on(prefix: ov.Model, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 60)
    with start_python(PROGRAM, photos, tmp_path / "a", 0.0, 0) as process:
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    told: list[int] = []
    found = store(load(photos), prefix, tmp_path / "a", progress=told.append)
    assert 20 <= told[0] < 180  # done before
    assert sum(told) == 180
    whole = store(load(photos), prefix, tmp_path / "b")
    assert found.activation.tobytes() == whole.activation.tobytes()
    assert found.early.tobytes() == whole.early.tobytes()


def test_a_full_disk_is_found_before_the_work(photos: Dataset, tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "photos", 4)
    began = time.monotonic()
    told = finished(start_python(PROGRAM, root, tmp_path / "a", 5.0, 4096))
    assert told[0] == 0, told
    assert "ERROR" in told[1]
    assert "no room for the activations" in told[1]
    assert "The frozen classifier is unchanged" in told[1]
    assert not (tmp_path / "a").exists()
    assert time.monotonic() - began < 60
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
