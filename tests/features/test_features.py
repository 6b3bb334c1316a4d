from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from photos import SIZE_PX, write_noise
from topwork.backbones.backbone import Backbone, BackboneFacts, load_backbone
from topwork.backbones.engine import Engine, compile_graph
from topwork.backbones.half import rounded
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.errors import InputError, TopworkError
from topwork.features.extract import Beside, Features, extract, open_store
from topwork.features.store import Store
from topwork.images.decode import Picture, decode, size_of
from topwork.parallel import AHEAD


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_noise(tmp_path_factory.mktemp("noise"), 150)


@pytest.fixture(scope="module")
def expected(noise: Dataset, backbone: Backbone) -> np.ndarray:
    """The features of `noise`, each computed by itself, in order, without a store."""
    engine = Engine(backbone, workers=1)
    return np.stack([engine(decode(e.image.read(), SIZE_PX)) for e in noise])


def extracted(dataset: Dataset, backbone: Backbone, store: Store, **options: bool) -> np.ndarray:
    return extract(dataset, backbone, store=store, **options).matrix()


@pytest.mark.usefixtures("cache")
def test_features_do_not_depend_on_order_subset_batch_or_workers(
    noise: Dataset, expected: np.ndarray, backbone: Backbone
) -> None:
    order = np.random.default_rng(0).permutation(len(noise))
    some = noise.select(order[:40].tolist())
    with open_store(backbone.facts) as store:
        first = extract(some, backbone, store=store)
        np.testing.assert_array_equal(first.matrix(), expected[order[:40]])
        every = extract(noise, backbone, store=store, engine=Engine(backbone, workers=3))
        np.testing.assert_array_equal(every.matrix(), expected)
        assert (first.computed, every.computed) == (40, len(noise) - 40)
        assert every.matrix().dtype == np.float32
        part = every.part(noise.select([7, 3]))
        np.testing.assert_array_equal(part.matrix(), expected[[7, 3]])
        assert extract(noise, backbone, store=store).computed == 0


def test_blocks_are_columns_of_the_features(
    noise: Dataset, expected: np.ndarray, backbone: Backbone, cache: Path
) -> None:
    names = tuple(block.name for block in backbone.facts.blocks)
    with open_store(backbone.facts) as store:
        features = extract(noise.take(5), backbone, store=store)
        assert features.matrix().shape == (5, backbone.facts.width)
        for block in backbone.facts.blocks:
            np.testing.assert_array_equal(
                features.matrix((block.name,)), expected[:5, block.start : block.stop]
            )
        some = (names[-1], names[0])
        np.testing.assert_array_equal(
            features.matrix(some), expected[:5][:, backbone.facts.columns(some)]
        )  # in the vector's own order
    assert cache.is_dir()


@pytest.mark.usefixtures("cache")
def test_an_image_that_stands_twice_has_the_same_features(noise: Dataset, backbone: Backbone) -> None:
    twice = [dataclasses.replace(e, id=f"{copy}/{e.id}") for e in noise.take(20) for copy in "ab"]
    with open_store(backbone.facts) as store:
        features = extract(Dataset(tuple(twice), (), "twice"), backbone, store=store)
        assert len(features.dataset) == 40
        assert len(store) == 20
        matrix = features.matrix()
        np.testing.assert_array_equal(matrix[::2], matrix[1::2])


@pytest.mark.usefixtures("cache")
def test_images_that_cannot_be_read_are_named_and_left_out(
    noise: Dataset, expected: np.ndarray, backbone: Backbone, tmp_path: Path
) -> None:
    whole = Path(noise[0].image.path).read_bytes()
    for name, content in {
        "text.jpg": b"hello",
        "empty.png": b"",
        "half.png": whole[: len(whole) // 2],
    }.items():
        (tmp_path / name).write_bytes(content)
    bad = ["gone.jpg", "text.jpg", "empty.png", "half.png"]
    examples = list(noise.take(6))
    for at, name in zip((0, 3, 5, 9), bad, strict=True):
        examples.insert(at, Example(name, FileImage(str(tmp_path / name))))
    mixed = Dataset(tuple(examples), (), "mixed")
    done = []
    with open_store(backbone.facts) as store:
        features = extract(mixed, backbone, store=store, progress=done.append)
        assert [p.id for p in features.problems] == bad
        assert features.problems[0].reason == "No such file or directory"
        assert all(p.reason for p in features.problems)
        assert [e.id for e in features.dataset] == [e.id for e in noise.take(6)]
        np.testing.assert_array_equal(features.matrix(), expected[:6])
        assert (features.computed, len(store), sum(done)) == (6, 6, 10)
        with pytest.raises(InputError, match=r"gone.jpg: No such file .*; mend or remove it, or run without"):
            extract(mixed, backbone, store=store, strict=True)
        lost = mixed.filter(lambda e: e.id in bad)
        with pytest.raises(
            InputError, match=r"mixed: none of 4 images can be read; the first: gone.jpg: No su"
        ):
            extract(lost, backbone, store=store)


@pytest.mark.usefixtures("cache")
def test_what_was_computed_before_a_strict_error_is_kept(
    noise: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    bad = Example("bad.jpg", FileImage(str(tmp_path / "bad.jpg")))
    dataset = Dataset((*noise.take(10), bad), (), "one bad")
    with open_store(backbone.facts) as store:
        with pytest.raises(InputError, match=r"bad.jpg"):
            extract(dataset, backbone, store=store, strict=True)
        assert len(store) == 10


def damage(store: Store, count: int) -> None:
    """Flip one bit in the vectors of `count` rows."""
    connection = sqlite3.connect(store.path)
    for row, vector in connection.execute(f"SELECT id, vector FROM features LIMIT {count}").fetchall():
        changed = bytes([vector[0] ^ 1]) + vector[1:]
        connection.execute("UPDATE features SET vector = ? WHERE id = ?", (changed, row))
    connection.commit()
    connection.close()


@pytest.mark.usefixtures("cache")
def test_damaged_rows_are_computed_anew(noise: Dataset, expected: np.ndarray, backbone: Backbone) -> None:
    few = noise.take(30)
    with open_store(backbone.facts) as store:
        before = extract(few, backbone, store=store)
        damage(store, 7)
        with pytest.raises(
            TopworkError, match=r"7 of 30 feature vectors were damaged .* run the command again and they are"
        ):
            before.matrix()
        after = extract(few, backbone, store=store)
        assert after.computed == 7
        np.testing.assert_array_equal(after.matrix(), expected[:30])
        np.testing.assert_array_equal(before.matrix(), expected[:30])
        assert extract(few, backbone, store=store).computed == 0


@pytest.mark.usefixtures("cache")
def test_a_store_that_is_no_database_is_begun_anew(
    noise: Dataset, expected: np.ndarray, backbone: Backbone
) -> None:
    few = noise.take(10)
    with open_store(backbone.facts) as store:
        extract(few, backbone, store=store)
    store.path.write_bytes(b"no database" * 500)
    with open_store(backbone.facts) as store:
        np.testing.assert_array_equal(extracted(few, backbone, store), expected[:10])
        assert store.set_aside is not None


def test_memory_in_flight_is_bounded(backbone: Backbone) -> None:
    """However many images there are, only a few are begun before the first result is taken."""
    from topwork.parallel import stream

    begun = []
    results = stream(lambda i: begun.append(i) or i, range(10_000), workers=2)
    assert next(results) == 0
    assert len(begun) <= AHEAD * 2
    results.close()


def test_the_store_is_known_by_the_backbone(backbone: Backbone, cache: Path) -> None:
    other = load_backbone("efficientnet-lite0", size_px=SIZE_PX, precision="f32", fit="crop")
    with open_store(backbone.facts) as one, open_store(other.facts) as two:
        assert one.path != two.path
        assert one.path == cache / "features" / f"{backbone.facts.fingerprint}.sqlite"
        assert one.about == f"efficientnet-lite0 at {SIZE_PX} px, f32"


def test_runs_of_early_versions_keep_their_own_features(
    noise: Dataset, backbone: Backbone, cache: Path
) -> None:
    """Facts that say nothing of half precision are of features as the network gives them, stored by themselves."""
    plain = {name: value for name, value in backbone.facts.to_dict().items() if name != "half"}
    facts = BackboneFacts.from_dict({**plain, "fingerprint": "01d" * 8})
    assert not facts.half
    old = Backbone(facts, backbone.graph)
    pixels = decode(noise[0].image.read(), SIZE_PX)
    exact = compile_graph(old, threads=1)([pixels[None]])[0][0]
    np.testing.assert_array_equal(Engine(old)(pixels), exact)
    np.testing.assert_array_equal(Engine(backbone)(pixels), rounded(exact))
    with open_store(old.facts) as store, open_store(backbone.facts) as new:
        assert (store.half, new.half) == (False, True)
        features = extract(noise.take(1), old, store=store).matrix()
        np.testing.assert_array_equal(features[0], exact)
    assert cache.is_dir()


def test_part_is_a_record_of_its_own(noise: Dataset, backbone: Backbone, cache: Path) -> None:
    with open_store(backbone.facts) as store:
        features = extract(noise.take(4), backbone, store=store)
        part = features.part(noise.take(4).skip(2))
        assert isinstance(part, Features)
        assert part.keys == features.keys[2:]
        assert len(features.dataset) == 4
    assert cache.is_dir()


@dataclasses.dataclass(frozen=True)
class Counted:
    """An image that counts how often its bytes are read."""

    data: bytes
    reads: list[int]

    def read(self) -> bytes:
        self.reads.append(1)
        return self.data


def made_in_order(dataset: Dataset) -> list[bytes]:
    return [example.image.data for example in dataset]


@pytest.mark.usefixtures("cache")
def test_each_file_is_read_once_for_all_that_is_stored(noise: Dataset, backbone: Backbone) -> None:
    """What is beside features comes from the same read, and is filled in where it alone is absent."""
    reads: list[int] = []
    examples = tuple(dataclasses.replace(e, image=Counted(e.image.read(), reads)) for e in noise.take(30))
    dataset = Dataset(examples, noise.classes, "counted")
    made: list[bytes] = []

    def make(picture: Picture, data: bytes) -> np.ndarray:
        made.append(data)
        return np.float32([*picture.size, picture.pixels(8).mean()])

    with open_store(backbone.facts) as store, Store.open("be51de" * 3, 3) as own:
        first = extract(dataset, backbone, store=store, beside=Beside(own, make))
        assert (len(reads), len(made), first.computed) == (30, 30, 30)
        rows, absent = own.get(first.keys)
        assert not absent.size
        assert rows[:, :2].tolist() == [list(size_of(data)) for data in made_in_order(dataset)]
        again = extract(dataset, backbone, store=store, beside=Beside(own, make))
        assert (len(reads), len(made), again.computed) == (60, 30, 0)
    with open_store(backbone.facts) as store, Store.open("be51de" * 4, 3) as other:
        filled = extract(dataset, backbone, store=store, beside=Beside(other, make))
        assert (len(made), filled.computed, len(other)) == (60, 0, 30)


def test_rows_are_an_array_that_is_read_in_parts(
    noise: Dataset, expected: np.ndarray, backbone: Backbone, cache: Path
) -> None:
    with open_store(backbone.facts) as store:
        features = extract(noise, backbone, store=store)
        rows = features.rows()
        assert len(rows) == len(noise)
        np.testing.assert_array_equal(rows[10:20], expected[10:20])
        np.testing.assert_array_equal(rows[np.array([7, 3, 7])], expected[[7, 3, 7]])
        last = backbone.facts.blocks[-1]
        np.testing.assert_array_equal(features.rows((last.name,))[:2], expected[:2, last.start : last.stop])
