"""Fit a classifier's calibration from features, on images that its head was not trained on."""

from __future__ import annotations

import numpy as np

from topwork.backbones.backbone import LAST
from topwork.classifiers.calibration import Calibration, calibration_of
from topwork.classifiers.novelty import fit_novelty
from topwork.data.groups import group_numbers
from topwork.data.split import Splits, folds
from topwork.features.extract import Features
from topwork.heads.fit import Fitted, fold_count
from topwork.parallel import one_blas_thread
from topwork.recipe import Recipe


def calibrate(features: Features, splits: Splits, fitted: Fitted, recipe: Recipe) -> Calibration | None:
    """Fit the "none of these" rule on training images, and the scores for prediction sets on held-out ones."""
    novelty = None
    train = splits.train.with_split(None)
    if recipe.head.reject > 0 and max(group_numbers(train)) > 0:
        with one_blas_thread():
            novelty = fit_novelty(
                features.part(splits.train).rows((LAST,)),
                train.targets(),
                folds(train, fold_count(train, recipe), seed=recipe.split.seed),
                class_count=len(train.classes),
                rate=recipe.head.reject,
            )
    if fitted.unseen is None or fitted.unseen_probabilities is None:
        if novelty is None:
            return None
        return Calibration(novelty, np.zeros(0, np.float32), 0)
    return calibration_of(novelty, fitted.unseen.targets(), fitted.unseen_probabilities)
