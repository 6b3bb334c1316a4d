"""`topwork audit`: planted faults in a folder, what is found of them, and what a person can make of it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.svm import SVC
from test_copies import encoded, scene

from photos import SIZE_PX, Topwork, one_line, shape, write_shapes
from topwork.checks.findings import KINDS, Audit
from topwork.checks.fixes import apply_fixes
from topwork.checks.labels import doubted_labels
from topwork.checks.looks import LOOKED_PX, look, unpacked
from topwork.checks.oddities import neighbour_distance, odd_pictures, outliers
from topwork.data.groups import group_by_pattern, joined
from topwork.data.sources import load
from topwork.data.split import split
from topwork.errors import InputError
from topwork.heads.head import softmax
from topwork.images.decode import Picture
from topwork.jobs.audit import audit
from topwork.jobs.train import train
from topwork.recipe import Recipe

Folder = dict[Path, bytes]


def everything(root: Path) -> Folder:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20, and one fault of each kind."""
    root = write_shapes(tmp_path_factory.mktemp("faulty") / "photos", 20)
    shutil.copy(root / "circle" / "003.png", root / "circle" / "copy.png")
    shutil.copy(root / "square" / "005.png", root / "stripes" / "wrong.png")
    shape("stripes", 7).save(root / "stripes" / "near.jpg", quality=92)
    (root / "circle" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    Image.new("RGB", (48, 48), (90, 90, 90)).save(root / "square" / "blank.png")
    random = np.random.default_rng(0)
    dark = random.integers(0, 25, (48, 48, 3), np.uint8)
    Image.fromarray(dark).save(root / "square" / "dark.png")
    bright = np.kron(random.integers(0, 2, (6, 6, 1)), np.ones((8, 8, 3)))
    Image.fromarray((255 - 8 * bright).astype(np.uint8)).save(root / "square" / "bright.png")
    shape("circle", 900).resize((16, 16)).save(root / "circle" / "tiny.png")
    shape("circle", 901).resize((400, 48)).save(root / "circle" / "wide.png")
    (root / "rare").mkdir()
    for i in range(3):
        shape("square", 800 + i).rotate(45, expand=True).save(root / "rare" / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def found(faulty: Path, recipe: Recipe) -> Audit:
    before = everything(faulty)
    result = audit(faulty, recipe=recipe)
    assert everything(faulty) == before
    return result


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("unreadable", {"circle/broken.jpg"}),
        ("duplicate", {"circle/003.png", "circle/copy.png"}),
        ("conflict", {"square/005.png", "stripes/wrong.png"}),
        ("near_duplicate", {"stripes/007.png", "stripes/near.jpg"}),
        ("blank", {"square/blank.png"}),
        ("dark", {"square/dark.png"}),
        ("bright", {"square/bright.png"}),
        ("tiny", {"circle/tiny.png"}),
        ("shape", {"circle/wide.png"}),
    ],
)
def test_a_planted_fault_is_found(kind: str, ids: set[str], found: Audit) -> None:
    assert [set(f.ids) for f in found.of(kind)] == [ids]


def test_blurred_pictures_among_sharp_ones() -> None:
    files = [scene(i) for i in range(40)] + [scene(i).filter(ImageFilter.GaussianBlur(5)) for i in (50, 51)]
    looks = unpacked(np.stack([look(Picture(data, LOOKED_PX), data) for data in map(encoded, files)]))
    assert [(o.row, o.kind) for o in odd_pictures(looks)] == [(40, "blurred"), (41, "blurred")]


def test_a_small_class_is_named(found: Audit) -> None:
    assert [f.labels for f in found.of("small_class")] == [("rare",)]


def test_kinds_come_gravest_first(found: Audit) -> None:
    order = [list(KINDS).index(f.kind) for f in found.findings]
    assert order == sorted(order)
    assert json.loads(json.dumps(found.to_dict()))["counts"] == found.counts()


def test_given_splits_that_leak(faulty: Path, recipe: Recipe, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for part in ("train", "test"):
        for label in ("circle", "square"):
            shutil.copytree(faulty / label, root / part / label)
    leaks = list(audit(root, recipe=recipe).of("leak"))
    assert len(leaks) >= 40
    assert all("in test and train" in f.note for f in leaks)


def test_the_command(call: Topwork, faulty: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    code, text, _ = call("audit", faulty, "--out", out, "--size", SIZE_PX)
    assert code == 0
    assert "The same picture under two labels: 1" in text
    assert {p.name for p in out.iterdir()} == {"audit.html", "audit.json", "fixes.csv"}
    code, text, _ = call("audit", faulty, "--json", "--size", SIZE_PX)
    assert json.loads(text)["counts"]["duplicate"] == 1
    one_line(call("audit", faulty, "--out", out, "--size", SIZE_PX), "already holds fixes")
    one_line(call("audit", faulty, "--out", faulty, "--size", SIZE_PX), "expected a new or empty folder")
    one_line(call("audit", tmp_path / "nothing"), "nothing")


def test_fixes_are_applied_and_photos_are_not_touched(
    call: Topwork, faulty: Path, tmp_path: Path, recipe: Recipe
) -> None:
    out, before = tmp_path / "audit", everything(faulty)
    audit(faulty, out, recipe=recipe)
    rows = list(csv.DictReader((out / "fixes.csv").read_text("utf-8").splitlines()))
    for row in rows:
        if row["id"] == "stripes/wrong.png":
            row |= {"suggestion": "relabel", "label": "square"}
        if row["id"] == "square/dark.png":
            row["suggestion"] = "leave out"
    with (out / "fixes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    fixed = apply_fixes(load(faulty), out / "fixes.csv")
    label = {e.id: e.label for e in fixed}
    assert label["stripes/wrong.png"] == "square"
    assert not {"square/blank.png", "square/dark.png"} & set(label)
    assert len({"circle/003.png", "circle/copy.png"} & set(label)) == 1  # "keep one", as was suggested
    run = tmp_path / "run"
    code, _, err = call("train", faulty, "--out", run, "--fixes", out / "fixes.csv", "--size", SIZE_PX)
    assert code == 0, err
    listed = {
        row["id"]: row["label"]
        for row in csv.DictReader((run / "splits.csv").read_text("utf-8").splitlines())
    }
    assert listed == {id: name for id, name in label.items() if id != "circle/broken.jpg"}
    left = {p["id"]: p["reason"] for p in json.loads((run / "report.json").read_text("utf-8"))["left_out"]}
    assert left["square/dark.png"] == "left out by fixes.csv: dark"
    assert everything(faulty) == before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("circle/000.png,blank,leaf out,,,", "unknown suggestion 'leaf out'; did you mean 'leave out'"),
        ("circle/nowhere.png,blank,leave out,,,", "expected the id of a picture"),
        ("circle/000.png,mislabelled,relabel,,,", "expected a class for 'circle/000.png'"),
    ],
)
def test_wrong_fixes_are_told_with_their_line(line: str, told: str, shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "fixes.csv"
    path.write_text(f"id,finding,suggestion,label,group,note\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2") as error:
        apply_fixes(load(shapes), path)
    assert told in str(error.value)


def test_fixes_that_are_none(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the fixes"):
        apply_fixes(load(shapes), tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="expected the columns id, finding"):
        apply_fixes(load(shapes), tmp_path / "other.csv")


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_swapped_labels_are_doubted(share: float) -> None:
    """Of digits, 4 in 5 of the swapped labels are found; and most of what is found is swapped."""
    x, truth = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    swapped = random.choice(len(x), round(share * len(x)), replace=False)
    given = truth.copy()
    given[swapped] = (given[swapped] + random.integers(1, 10, len(swapped))) % 10
    model = SVC(C=5)
    scores = cross_val_predict(model, x / 16, given, cv=5, method="decision_function")
    probabilities = softmax(3 * scores)
    doubts = doubted_labels(given, probabilities)
    flagged = {doubt.row for doubt in doubts}
    hit = flagged & set(swapped.tolist())
    assert len(hit) >= 0.8 * len(swapped)
    assert share < 0.05 or len(hit) >= 0.55 * len(flagged)
    assert np.mean([truth[d.row] == d.instead for d in doubts if d.row in hit]) > 0.9
    assert [d.margin for d in doubts] == sorted((d.margin for d in doubts), reverse=True)


def test_doubts_are_the_papers_off_diagonal() -> None:
    """Three classes by hand: thresholds are 0.6, 0.525 and 0.7."""
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.4, 0.56, 0.04],
            [0.2, 0.7, 0.1],
            [0.61, 0.35, 0.04],
            [0.2, 0.2, 0.6],
            [0.1, 0.1, 0.8],
        ]
    )
    doubts = doubted_labels(np.array([0, 0, 1, 1, 2, 2]), probabilities)
    assert [(d.row, d.instead, round(d.margin, 2)) for d in doubts] == [(3, 0, 0.26), (1, 1, 0.16)]


def test_neighbours_are_of_other_groups() -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    x[1] = x[0]
    near = neighbour_distance(x, np.arange(50))
    apart = neighbour_distance(x, np.array([0, 0, *range(2, 50)]))
    assert near[0] < apart[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[7] - unit, axis=1)
    assert near[7] == pytest.approx(np.sort(distances)[1:6].mean())


def test_a_stranger_is_an_outlier() -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 0.1, (200, 16)) + 1
    x[17] = -1
    assert [o.row for o in outliers(x, np.arange(200))] == [17]
    assert list(outliers(x[:10], np.arange(10))) == []


def test_copies_stay_on_one_side(tmp_path: Path, recipe: Recipe) -> None:
    """Half of the set are near copies: a blind split would leak, and the report says by how much."""
    root = write_shapes(tmp_path / "photos", 20)
    for label in ("circle", "square", "stripes"):
        for i in range(20):
            shape(label, i).save(root / label / f"again{i:03}.jpg", quality=93)
    run = train(root, tmp_path / "run", recipe=recipe)
    rows = list(csv.DictReader((run.path / "splits.csv").read_text("utf-8").splitlines()))
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"] or row["id"], set()).add(row["split"])
    assert all(len(parts) == 1 for parts in sides.values())
    assert sum(bool(row["group"]) for row in rows) >= 100
    assert run.leak is not None
    assert run.leak.images > 5
    assert run.leak.interval.low <= run.leak.accuracy <= run.leak.interval.high


def test_groups_by_a_pattern_and_by_a_column(tmp_path: Path, shapes: Path, call: Topwork) -> None:
    by_tens = group_by_pattern(load(shapes), r"/(\d)\d+\.png")
    assert {e.group for e in by_tens} == {"0"}
    with pytest.raises(InputError, match="expected a regular expression"):
        group_by_pattern(load(shapes), "(")
    with pytest.raises(InputError, match="they capture nothing"):
        group_by_pattern(load(shapes), "(never)")
    manifest = tmp_path / "m.csv"
    lines = [f"{e.image},{e.label},p{i % 7}" for i, e in enumerate(load(shapes))]
    manifest.write_text("\n".join(["path,label,Patient", *lines]), encoding="utf-8")
    assert {e.group for e in load(manifest, group_by="patient")} == {f"p{i}" for i in range(7)}
    one_line(
        call("train", manifest, "--out", tmp_path / "r", "--group-by", "pasient"), "did you mean 'patient'"
    )
    one_line(
        call("train", shapes, "--out", tmp_path / "r", "--group-by", "patient"),
        "expected a regular expression for the path",
    )


def test_joined_groups_take_in_the_users_own(shapes: Path) -> None:
    dataset = group_by_pattern(load(shapes).take(20), r"(\d)\.png")  # 0 to 9, two each
    together = joined(dataset, [(0, 1), (1, 2)])
    assert [e.group for e in together][:4] == ["0", "0", "0", "3"]
    bare = joined(load(shapes).take(5), [(3, 1)])
    assert [e.group for e in bare] == [
        None,
        "copies of circle/001.png",
        None,
        "copies of circle/001.png",
        None,
    ]
    parts = split(joined(load(shapes), [(0, 1, 2), (25, 26)]), test=0.3)
    sides = {e.group: {p for p in ("train", "test") if e in getattr(parts, p)} for e in bare}
    assert all(len(s) <= 1 for s in sides.values())
