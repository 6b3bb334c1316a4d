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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topwork.backbones.backbone import Backbone as Backbone
    from topwork.backbones.backbone import load_backbone as load_backbone
    from topwork.checks.findings import Audit as Audit
    from topwork.classifiers.classifier import Classifier as Classifier
    from topwork.classifiers.classifier import Prediction as Prediction
    from topwork.data.dataset import Dataset as Dataset
    from topwork.data.dataset import Example as Example
    from topwork.data.sources import load as load
    from topwork.data.split import Splits as Splits
    from topwork.data.split import split as split
    from topwork.errors import ImageError as ImageError
    from topwork.errors import InputError as InputError
    from topwork.errors import MissingExtra as MissingExtra
    from topwork.errors import TopworkError as TopworkError
    from topwork.evaluation.evaluate import Evaluation as Evaluation
    from topwork.evaluation.evaluate import evaluate as evaluate
    from topwork.features.extract import Features as Features
    from topwork.features.extract import extract as extract
    from topwork.jobs.advise import advise as advise
    from topwork.jobs.audit import audit as audit
    from topwork.jobs.diff import Difference as Difference
    from topwork.jobs.diff import compare_runs as compare_runs
    from topwork.jobs.diff import diff as diff
    from topwork.jobs.export import Exported as Exported
    from topwork.jobs.export import export as export
    from topwork.jobs.export import publish_module as publish_module
    from topwork.jobs.finetune import Finetuned as Finetuned
    from topwork.jobs.finetune import finetune as finetune
    from topwork.jobs.predict import predict as predict
    from topwork.jobs.train import Run as Run
    from topwork.jobs.train import train as train
    from topwork.progress import Watch as Watch
    from topwork.recipe import AugmentRecipe as AugmentRecipe
    from topwork.recipe import BackboneRecipe as BackboneRecipe
    from topwork.recipe import FinetuneRecipe as FinetuneRecipe
    from topwork.recipe import HeadRecipe as HeadRecipe
    from topwork.recipe import Recipe as Recipe
    from topwork.recipe import SplitRecipe as SplitRecipe
    from topwork.runs.report.write import report as report
    from topwork.runs.report.write import write_report as write_report
    from topwork.tuning.advice.advice import Advice as Advice

__version__ = "0.1.0"

# Where the public names live. A name is imported when it is first used, so that `import topwork` costs nothing.
_HOMES = {
    "backbones.backbone": ("Backbone", "load_backbone"),
    "classifiers.classifier": ("Classifier", "Prediction"),
    "data.dataset": ("Dataset", "Example"),
    "data.sources": ("load",),
    "data.split": ("Splits", "split"),
    "errors": ("ImageError", "InputError", "MissingExtra", "TopworkError"),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "jobs.export": ("export", "publish_module", "Exported"),
    "features.extract": ("Features", "extract"),
    "jobs.finetune": ("Finetuned", "finetune"),
    "recipe": ("AugmentRecipe", "BackboneRecipe", "FinetuneRecipe", "HeadRecipe", "Recipe", "SplitRecipe"),
    "jobs.train": ("Run", "train"),
    "jobs.audit": ("audit",),
    "jobs.diff": ("compare_runs", "diff", "Difference"),
    "runs.report.write": ("write_report", "report"),
    "jobs.predict": ("predict",),
    "jobs.advise": ("advise",),
    "tuning.advice.advice": ("Advice",),
    "checks.findings": ("Audit",),
    "progress": ("Watch",),
}
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"topwork.{home}"), name)
    raise AttributeError(f"module 'topwork' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", "__doc__", "__all__", *__all__})
