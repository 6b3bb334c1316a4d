"""Image classification by transfer learning: a trained network's trunk, a new crown from your labelled photos.

>>> import topwork
>>> dataset = topwork.load("photos")  # doctest: +SKIP
>>> run = topwork.train(dataset, "run")  # doctest: +SKIP
>>> print(run.test.accuracy, run.test.interval)  # doctest: +SKIP
>>> classifier = topwork.Classifier.load("run")  # doctest: +SKIP
>>> for prediction in classifier.predict(["new/1.jpg", "new/2.jpg"]):  # doctest: +SKIP
...     print(prediction.image, prediction.top(3))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topwork.auditing import audit
    from topwork.backbone import Backbone, load_backbone
    from topwork.classifier import Classifier, Prediction
    from topwork.comparing import compare_runs
    from topwork.data.dataset import Dataset, Example
    from topwork.data.sources import load
    from topwork.data.split import Splits, split
    from topwork.errors import ImageError, InputError, MissingExtra, TopworkError
    from topwork.evaluation import Evaluation, evaluate
    from topwork.exporting import export, publish_module
    from topwork.features import Features, extract
    from topwork.finetuning import Finetuned
    from topwork.recipe import (
        AugmentRecipe,
        BackboneRecipe,
        FinetuneRecipe,
        HeadRecipe,
        Recipe,
        SplitRecipe,
    )
    from topwork.reporting.writing import write_report
    from topwork.training import Run, train

__version__ = "0.1.0"

# Where each public name lives. It is imported when it is first used, so that `import topwork` costs nothing.
_HOMES = {
    "Backbone": "backbone",
    "load_backbone": "backbone",
    "Classifier": "classifier",
    "Prediction": "classifier",
    "Dataset": "data.dataset",
    "Example": "data.dataset",
    "load": "data.sources",
    "Splits": "data.split",
    "split": "data.split",
    "ImageError": "errors",
    "InputError": "errors",
    "MissingExtra": "errors",
    "TopworkError": "errors",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "export": "exporting",
    "publish_module": "exporting",
    "Features": "features",
    "extract": "features",
    "Finetuned": "finetuning",
    "finetune": "finetuning",
    "AugmentRecipe": "recipe",
    "BackboneRecipe": "recipe",
    "FinetuneRecipe": "recipe",
    "HeadRecipe": "recipe",
    "Recipe": "recipe",
    "SplitRecipe": "recipe",
    "Run": "training",
    "train": "training",
    "audit": "auditing",
    "compare_runs": "comparing",
    "write_report": "reporting.writing",
}

__all__ = [  # noqa: RUF022 - in the order of _HOMES
    "Backbone",
    "load_backbone",
    "Classifier",
    "Prediction",
    "Dataset",
    "Example",
    "load",
    "Splits",
    "split",
    "ImageError",
    "InputError",
    "MissingExtra",
    "TopworkError",
    "Evaluation",
    "evaluate",
    "export",
    "publish_module",
    "Features",
    "extract",
    "Finetuned",
    "finetune",
    "AugmentRecipe",
    "BackboneRecipe",
    "FinetuneRecipe",
    "HeadRecipe",
    "Recipe",
    "SplitRecipe",
    "Run",
    "train",
    "audit",
    "compare_runs",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'topwork' has no attribute {name!r}")
    return getattr(importlib.import_module(f"topwork.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
