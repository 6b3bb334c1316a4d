"""What a split that knows nothing of copies claims, what ours says, and what independent pictures then say.

    python -m benchmarks.accuracy.split_leak [--work FOLDER] [--size 128] [--splits 10]

Of each dataset a quarter is set apart first: no copy of it is anywhere else. Of the rest (at most 1,000 pictures)
every one is copied once, recompressed, halved, brightened, darkened or mirrored, so that half of the set are copies.
A classifier is trained on 80 % of that set and tested on the rest, twice: by a naive split, and by Topwork's, which
has to find the copies by itself. Both classifiers are then asked about the quarter that was set apart. Ten draws.

Where labels are said to be noisy, a fifth is swapped at random, in copies alike: a label that can only be known by
heart is what a leak gives away. Needs what benchmarks/data/packaged.py needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.accuracy.audit_faults import changes, on_white
from benchmarks.data.packaged import LIMIT, _emoji, write_dataset
from benchmarks.options import WORK, shared_options
from topwork.backbones.backbone import load_backbone
from topwork.checks.groups import check
from topwork.cli.demo import load_cells
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.data.groups import with_groups
from topwork.data.sources import load
from topwork.data.split import split, splits_of
from topwork.evaluation.significance import Interval, wilson
from topwork.features.extract import Features, extract, open_store
from topwork.features.store import Store
from topwork.heads.fit import fit_head
from topwork.progress import Silent
from topwork.recipe import BackboneRecipe, Recipe

COPIED, APART, NOISE = 1000, 0.25, 0.2
CHANGES = (
    "recompressed (75)",
    "recompressed (50)",
    "half the size",
    "brighter by 15 %",
    "darker by 30 %",
    "mirrored",
)
SETS = ("elpv", "emoji of one vendor", "digits, noisy labels", "textures, noisy labels")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`claimed`, by the split's own test part; `apart`, of the same classifier on the pictures set apart.

    `interval`: 95 %, of `apart`. `leaks`: the share of the test part that has a copy in the training part.
    """

    claimed: float
    apart: float
    interval: Interval
    leaks: float


def main() -> None:
    parser = shared_options(__doc__, work=WORK, size=128, splits=10)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"of {'; '.join(SETS)}; by default all")
    options = parser.parse_args()
    recipe = Recipe(backbone=BackboneRecipe(size_px=options.size, precision="f32"))
    backbone = load_backbone(recipe.backbone.handle, size_px=options.size, precision="f32")
    print(
        "| data | set, apart | test images with a copy in training: naive, ours | naive split claims | its "
        "classifier, apart | ours says | its classifier, apart (95 %) | ours less apart: mean ± standard error | "
        "within the interval |\n|---|---|---|---|---|---|---|---|---|"
    )
    with open_store(backbone.facts) as store:
        for name in options.sets:
            originals = pictures(name, options.work)
            copies = copied(originals, options.work / "leak" / name.partition(",")[0])
            features = extract(joined(originals, copies), backbone, store=store)
            whole = grouped(features, originals)
            pairs = [one_draw(features, whole, seed, recipe, store) for seed in range(options.splits)]
            print(row(name, pairs), flush=True)


def one_draw(
    features: Features, originals: Dataset, seed: int, recipe: Recipe, store: Store
) -> tuple[Outcome, Outcome, int, int]:
    """The naive split's outcome and ours; how many pictures the set has, and how many are apart."""
    parts = split(originals, test=APART, seed=seed)
    kept = parts.train.shuffle(seed).take(COPIED)
    examples = tuple(bare for e in kept for bare in (e, dataclasses.replace(e, id=copy_id(e.id))))
    of_id = {e.id: e for e in features.dataset}
    images = tuple(dataclasses.replace(e, image=of_id[e.id].image, group=None) for e in examples)
    mixed = Dataset(images, originals.classes, originals.name)
    together = [e.group or e.id for e in examples]  # who is one picture: known to the judge alone
    whose = {e.id: group.removesuffix(".copy") for e, group in zip(mixed, together, strict=True)}
    part = features.part(mixed)
    seeded = dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, seed=seed))
    apart = features.part(with_groups(parts.test, [None] * len(parts.test)))
    naive = outcome(part, apart, whose, seeded)
    ours = outcome(check(part, lambda _: None).features, apart, whose, seeded)
    return naive, ours, len(mixed), len(parts.test)


def outcome(part: Features, apart: Features, whose: dict[str, str], recipe: Recipe) -> Outcome:
    wanted = recipe.split
    splits = splits_of(part.dataset, test=wanted.test, seed=wanted.seed)
    fitted = fit_head(part, splits, recipe, tensorboard=Path(), watch=Silent())
    right = []
    for asked in (part.part(splits.test), apart):
        said = fitted.head.logits(asked.matrix(fitted.blocks)).argmax(axis=1)
        right.append(said == asked.dataset.targets())
    learnt = {whose[e.id] for e in splits.train}
    leaks = sum(whose[e.id] in learnt for e in splits.test) / len(splits.test)
    interval = wilson(float(right[1].sum()), len(right[1]))
    return Outcome(float(right[0].mean()), float(right[1].mean()), interval, leaks)


def row(name: str, pairs: list[tuple[Outcome, Outcome, int, int]]) -> str:
    naive, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    gap = np.array([100 * (o.claimed - o.apart) for o in ours])
    inside = sum(o.interval.low <= o.claimed <= o.interval.high for o in ours)
    low, high = (100 * np.mean([getattr(o.interval, end) for o in ours]) for end in ("low", "high"))

    def mean(outcomes: Iterable[Outcome], field: str) -> str:
        return f"{100 * np.mean([getattr(o, field) for o in outcomes]):.1f} %"

    return (
        f"| {name} | {pairs[0][2]}, {pairs[0][3]} | {mean(naive, 'leaks')}, {mean(ours, 'leaks')} | "
        f"{mean(naive, 'claimed')} | {mean(naive, 'apart')} | {mean(ours, 'claimed')} | {mean(ours, 'apart')} "
        f"({low:.1f} to {high:.1f}) | {gap.mean():+.1f} ± {gap.std(ddof=1) / len(gap) ** 0.5:.1f} | "
        f"{inside} of {len(ours)} |"
    )


def pictures(name: str, work: Path) -> Dataset:
    """The originals, each in no group; a fifth of the labels swapped where that was asked for."""
    kind, _, noisy = name.partition(", ")
    if kind == "elpv":
        dataset = load_cells()[0]
    elif kind.startswith("emoji"):
        dataset = load(emoji_of_one_vendor(work))
    else:
        dataset = load(write_dataset(kind, work))
    examples = [dataclasses.replace(e, group=None, split=None, weight=1.0) for e in dataset]
    if noisy:
        random = np.random.default_rng(0)
        for row in random.choice(len(examples), round(NOISE * len(examples)), replace=False).tolist():
            others = [c for c in dataset.classes if c != examples[row].label]
            examples[row] = dataclasses.replace(examples[row], label=others[random.integers(len(others))])
    return Dataset(tuple(examples), dataset.classes, name)


def emoji_of_one_vendor(work: Path) -> Path:
    """A folder of emoji as one vendor draws them, by category: each is drawn once, so that none is a copy."""
    folder = work / "leak" / "emoji-google"
    if not folder.exists():
        wanted = lambda entry, vendor: entry["category"] if vendor == "google" else None  # noqa: E731
        for number, picture in enumerate(_emoji(work, LIMIT, wanted, leave_out=("Component",))):
            path = folder / picture.label.replace(" & ", "-and-") / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.image.save(path)
    return folder


def copied(originals: Dataset, folder: Path) -> dict[str, Path]:
    """A changed copy of every picture, by the picture's id; written once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    random = np.random.default_rng(0)
    apply = changes(random)
    for number, example in enumerate(originals):
        change = CHANGES[int(random.integers(len(CHANGES)))]
        path = folder / f"{number:04}.jpg"
        if not path.exists():
            path.write_bytes(apply[change](on_white(example.image.read())))
        paths[example.id] = path
    return paths


def copy_id(id: str) -> str:
    return f"{id}.copy"


def joined(originals: Dataset, copies: dict[str, Path]) -> Dataset:
    """The originals, then a copy of each."""
    more = (Example(copy_id(e.id), FileImage(str(copies[e.id])), e.label) for e in originals)
    return Dataset((*originals, *more), originals.classes, originals.name)


def grouped(features: Features, originals: Dataset) -> Dataset:
    """The originals, with those that are near copies by nature in groups: no part may divide them."""
    return check(features.part(originals), lambda _: None).features.dataset


if __name__ == "__main__":
    main()
