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
    from topwork.backbones.backbone import Backbone, load_backbone
    from topwork.classifiers.classifier import Classifier, Prediction
    from topwork.data.dataset import Dataset, Example
    from topwork.data.sources import load
    from topwork.data.split import Splits, split
    from topwork.errors import ImageError, InputError, MissingExtra, TopworkError
    from topwork.evaluation.evaluate import Evaluation, evaluate
    from topwork.features.extract import Features, extract
    from topwork.jobs.audit import audit
    from topwork.jobs.diff import compare_runs
    from topwork.jobs.export import export, publish_module
    from topwork.jobs.finetune import Finetuned
    from topwork.jobs.train import Run, train
    from topwork.recipe import AugmentRecipe, BackboneRecipe, FinetuneRecipe, HeadRecipe, Recipe, SplitRecipe
    from topwork.runs.report.write import write_report

__version__ = "0.1.0"

# Where each public name lives. It is imported when it is first used, so that `import topwork` costs nothing.
_HOMES = {
    "Backbone": "backbones.backbone",
    "load_backbone": "backbones.backbone",
    "Classifier": "classifiers.classifier",
    "Prediction": "classifiers.classifier",
    "Dataset": "data.dataset",
    "Example": "data.dataset",
    "load": "data.sources",
    "Splits": "data.split",
    "split": "data.split",
    "ImageError": "errors",
    "InputError": "errors",
    "MissingExtra": "errors",
    "TopworkError": "errors",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "export": "jobs.export",
    "publish_module": "jobs.export",
    "Features": "features.extract",
    "extract": "features.extract",
    "Finetuned": "jobs.finetune",
    "finetune": "jobs.finetune",
    "AugmentRecipe": "recipe",
    "BackboneRecipe": "recipe",
    "FinetuneRecipe": "recipe",
    "HeadRecipe": "recipe",
    "Recipe": "recipe",
    "SplitRecipe": "recipe",
    "Run": "jobs.train",
    "train": "jobs.train",
    "audit": "jobs.audit",
    "compare_runs": "jobs.diff",
    "write_report": "runs.report.write",
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
