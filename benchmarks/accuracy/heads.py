"""The linear head of many photos beside the exact one: test accuracy and log-loss, paired over random splits.

    python -m benchmarks.accuracy.heads [--only emoji-vendors fonts letters] [--pictures 5000] [--splits 10]

With more than 2,500 photos the head is solved along the strongest directions of a sample first and then, in few
steps, on all features (see `topwork.heads.design`); with fewer it is exact, and nothing is to be compared. Exact is
here the same path along all directions, for all folds. Three quarters of the photos are learnt from, groups on one
side; five folds choose the penalty. Lite0 at 96 px, f32, all stages. The interval is the mean difference plus and
minus 1.96 standard errors over the splits, which share photos, so that it is somewhat too narrow.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.data.packaged import write_dataset
from benchmarks.options import WORK, shared_options
from topwork.backbones.backbone import LAST, load_backbone
from topwork.data.groups import group_numbers
from topwork.data.sources import load
from topwork.features.extract import extract, open_store
from topwork.heads import choose, design
from topwork.heads.head import softmax
from topwork.heads.linear import fit_linear
from topwork.parallel import one_blas_thread

SETS = ("emoji-vendors", "fonts", "letters")
SIZE_PX, FOLDS = 96, 5


def fitted(exact: bool, x: np.ndarray, y: np.ndarray, folds: np.ndarray, classes: int) -> tuple:
    """Logits are taken from the head; the seconds are processor time."""
    before = design.EXACT, choose.ENOUGH_HELD_OUT
    if exact:
        design.EXACT = choose.ENOUGH_HELD_OUT = 10**9
    try:
        began = time.process_time()
        with one_blas_thread():
            head = fit_linear(x, y, class_count=classes, folds=folds).head
        return head, time.process_time() - began
    finally:
        design.EXACT, choose.ENOUGH_HELD_OUT = before


def main() -> None:
    options = shared_options(__doc__, only=list(SETS), pictures=5000, splits=10, work=WORK).parse_args()
    backbone = load_backbone("efficientnet-lite0", size_px=SIZE_PX, precision="f32")
    print("| dataset | photos, classes | exact: accuracy, log-loss | difference | processor time, s |")
    print("|---|---|---|---|---|")
    for name in options.only:
        dataset = load(write_dataset(name, options.work, options.pictures))
        with open_store(backbone.facts) as store:
            features = extract(dataset, backbone, store=store)
            names = tuple(b.name for b in backbone.facts.blocks if b.name != LAST)
            x, y = features.matrix(names), features.dataset.targets()
        group = np.array(group_numbers(features.dataset))
        rows = []
        for seed in range(options.splits):
            random = np.random.default_rng(seed)
            part = random.permutation(group.max() + 1)[group]
            test, folds = part % 4 == 0, part // 4 % FOLDS
            row = []
            for exact in (True, False):
                head, seconds = fitted(exact, x[~test], y[~test], folds[~test], len(dataset.classes))
                logits = head.logits(x[test])
                p = softmax(logits, head.temperature)[np.arange(test.sum()), y[test]]
                accuracy = 100 * (logits.argmax(axis=1) == y[test]).mean()
                row += [accuracy, -np.log(np.maximum(p, 1e-12)).mean(), seconds]
            rows.append(row)
        exact, new = np.array(rows)[:, :3], np.array(rows)[:, 3:]
        told = []
        for column, digits in ((0, 2), (1, 4)):
            difference = new[:, column] - exact[:, column]
            half = 1.96 * statistics.stdev(difference) / len(rows) ** 0.5
            told.append(f"{difference.mean():+.{digits}f} ± {half:.{digits}f}")
        mean = exact.mean(axis=0)
        print(
            f"| {name} | {len(y):,}, {len(dataset.classes)} | {mean[0]:.2f} %, {mean[1]:.4f} | {', '.join(told)} "
            f"| {mean[2]:.0f}, {new[:, 2].mean():.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
