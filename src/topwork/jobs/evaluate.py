"""Score a classifier on a data set: the command `evaluate`."""

from __future__ import annotations

from topwork.backbones.backbone import precision_note
from topwork.classifiers.classifier import Classifier
from topwork.classifiers.score import Scored, score, targets_for
from topwork.data.dataset import Dataset
from topwork.features.extract import extract, open_store
from topwork.progress import Silent, Watch


def score_dataset(
    classifier: Classifier, dataset: Dataset, *, strict: bool = False, watch: Watch | None = None
) -> Scored:
    """`score` for a data set; stored features are reused."""
    targets_for(classifier, dataset)  # fail before the work
    watch = watch or Silent()
    if note := precision_note(classifier.backbone.facts):
        watch.say(note)
    with open_store(classifier.backbone.facts) as store, watch.bar("features", len(dataset)) as progress:
        features = extract(dataset, classifier.backbone, store=store, strict=strict, progress=progress)
        return score(classifier, features)
