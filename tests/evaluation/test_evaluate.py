"""`evaluate` against scikit-learn on generated data; its record, its rules, its refusals."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from topwork.errors import InputError
from topwork.evaluation.evaluate import Evaluation, evaluate, mcnemar, wilson
from topwork.evaluation.significance import mcnemar as the_same_mcnemar

NAMES = [f"class {i}" for i in range(8)]


@st.composite
def labelled(draw, most_classes=8):
    """Targets, probabilities (often tied) and weights, from a drawn seed: hypothesis picks the shape."""
    K, n = draw(st.integers(2, most_classes)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    targets = rng.integers(0, draw(st.integers(1, K)), n)
    scores = rng.random((n, K)) + draw(st.sampled_from([0, 0.5])) * np.eye(K)[targets]
    if draw(st.booleans()):
        scores = np.ceil(scores * 4)
    weights = rng.choice([0.5, 1, 2], n)
    return targets, scores / scores.sum(axis=1, keepdims=True), weights


@settings(deadline=None)
@given(labelled())
def test_agrees_with_scikit_learn(data):
    y, p, w = data
    K = p.shape[1]
    e = evaluate(y, p, classes=NAMES[:K], weights=w)
    predicted = p.argmax(axis=1)
    with warnings.catch_warnings():  # scikit-learn warns of classes that are absent, and of a single one
        warnings.simplefilter("ignore")
        balanced = metrics.balanced_accuracy_score(y, predicted)
        confusion = metrics.confusion_matrix(y, predicted, labels=range(K))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y, predicted, labels=range(K), zero_division=0
    )
    assert e.accuracy == pytest.approx(metrics.accuracy_score(y, predicted))
    assert e.interval == wilson(int((y == predicted).sum()), len(y))
    assert e.balanced_accuracy == pytest.approx(balanced)
    assert e.macro_f1 == pytest.approx(metrics.f1_score(y, predicted, average="macro", zero_division=0))
    assert np.array_equal(e.confusion, confusion)
    assert [s.n for s in e.per_class] == support.tolist()
    assert [s.precision for s in e.per_class] == pytest.approx(precision)
    assert [s.recall or 0 for s in e.per_class] == pytest.approx(recall)
    assert [s.f1 or 0 for s in e.per_class] == pytest.approx(f1)
    assert e.log_loss == pytest.approx(metrics.log_loss(y, p, labels=range(K)))
    assert e.brier == pytest.approx(((p - np.eye(K)[y]) ** 2).sum(axis=1).mean())
    if (w == w[0]).all():
        assert (e.weighted_accuracy, e.weighted_interval, e.effective_n) == (None, None, None)
    else:
        assert e.weighted_accuracy == pytest.approx(metrics.accuracy_score(y, predicted, sample_weight=w))
        assert e.effective_n == pytest.approx(w.sum() ** 2 / (w**2).sum())
        assert e.weighted_interval == wilson(e.weighted_accuracy * e.effective_n, e.effective_n)


@settings(deadline=None)
@given(labelled(most_classes=2))
def test_auroc_agrees_with_scikit_learn(data):
    y, p, _ = data
    e = evaluate(y, p, classes=["no", "yes"])
    if len(set(y.tolist())) == 1:
        assert e.auroc is None
    else:
        assert e.auroc == pytest.approx(metrics.roc_auc_score(y, p[:, 1]))
    assert e.top_k == {}


@settings(deadline=None)
@given(st.integers(3, 8), st.integers(1, 40), st.integers(0, 2**32), st.integers(1, 7))
def test_top_k_agrees_with_scikit_learn(K, n, seed, top_k):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, K, n), rng.dirichlet(np.ones(K), n)  # no ties: there the rules differ
    e = evaluate(y, p, classes=NAMES[:K], top_k=top_k)
    assert list(e.top_k) == [k for k in sorted({3, 5, top_k}) if 1 < k < K and k <= top_k]
    for k, share in e.top_k.items():
        assert share == pytest.approx(metrics.top_k_accuracy_score(y, p, k=k, labels=range(K)))
    assert e.auroc is None


@settings(deadline=None)
@given(labelled(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(data, random):
    y, p, w = data
    order = list(range(len(y)))
    random.shuffle(order)
    a = evaluate(y, p, classes=NAMES[: p.shape[1]], weights=w)
    b = evaluate(y[order], p[order], classes=NAMES[: p.shape[1]], weights=w[order])
    assert np.array_equal(a.confusion, b.confusion)
    assert (a.accuracy, a.interval, a.top_k, a.auroc) == (b.accuracy, b.interval, b.top_k, b.auroc)
    for name in ("weighted_accuracy", "log_loss", "brier", "calibration_error"):
        assert getattr(a, name) == pytest.approx(getattr(b, name))


@settings(deadline=None)
@given(labelled())
def test_survives_json(data):
    y, p, w = data
    e = evaluate(y, p, classes=NAMES[: p.shape[1]], weights=w)
    text = json.dumps(e.to_dict(), allow_nan=False)
    assert json.loads(text) == e.to_dict()  # nothing that JSON would turn into something else
    again = Evaluation.from_dict(json.loads(text))
    assert again == e
    assert again.top_k == e.top_k
    assert again.per_class == e.per_class
    assert again.calibration == e.calibration
    assert again.confusion.dtype == np.int64
    assert again.classes == e.classes == tuple(NAMES[: p.shape[1]])


def small() -> Evaluation:
    return evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], classes=["cat", "dog"])


def test_record_is_frozen_and_comparable():
    e = small()
    assert e == small()
    assert e != evaluate([1, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], classes=["cat", "dog"])
    assert e != "something else"
    with pytest.raises(AttributeError):
        e.n = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        e.confusion[0, 0] = 5


def test_ties_go_to_the_first_class():
    e = evaluate([0, 1], [[0.5, 0.5], [0.5, 0.5]], classes=["a", "b"])
    assert e.confusion.tolist() == [[1, 0], [1, 0]]


def test_baseline_is_the_training_majority_where_given():
    p = np.full((3, 3), 1 / 3)
    own = evaluate([2, 2, 0], p, classes=["a", "b", "c"]).baseline
    given_ = evaluate([2, 2, 0], p, classes=["a", "b", "c"], majority="a").baseline
    assert (own.name, own.accuracy) == ("c", pytest.approx(2 / 3))
    assert (given_.name, given_.accuracy) == ("a", pytest.approx(1 / 3))


def test_weights_count_by_ratio_however_large():
    y, p = [0, 1], [[0.9, 0.1], [0.8, 0.2]]
    plain = evaluate(y, p, classes=["a", "b"], weights=[3, 1])
    huge = evaluate(y, p, classes=["a", "b"], weights=[1.5e308, 0.5e308])
    assert plain.weighted_accuracy == pytest.approx(0.75)
    assert plain.effective_n == pytest.approx(1.6)
    assert huge.weighted_accuracy == pytest.approx(0.75)
    assert huge.effective_n == pytest.approx(1.6)
    assert evaluate(y, p, classes=["a", "b"], weights=[7, 7]).weighted_accuracy is None


def test_half_precision_probabilities_are_accepted():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(10), 200).astype(np.float16)
    assert evaluate(np.zeros(200, np.uint8), p, classes=[str(i) for i in range(10)]).n == 200


def test_the_paired_test_is_found_here_too():
    assert mcnemar is the_same_mcnemar


GOOD = {"targets": [0, 1], "probabilities": [[0.5, 0.5], [0.1, 0.9]], "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [], "probabilities": []}, r"nothing to evaluate: there are no images"),
        ({"targets": [0.0, 1.0]}, r"`targets` must be class numbers, int \(N,\); got float64 \(2,\)"),
        ({"targets": [[0, 1]]}, r"`targets` must be class numbers, int \(N,\); got int64 \(1, 2\)"),
        ({"targets": ["a", "b"]}, r"`targets` must be class numbers, int \(N,\); got <U1"),
        (
            {"targets": [0, -1]},
            r"needs labelled images; 1 of 2 have no label \(target -1\), first at position 1: leave",
        ),
        ({"targets": [0, 2]}, r"`targets` must lie in 0\.\.1 \(2 classes\); got 2 at position 1"),
        ({"targets": [-7, 0]}, r"`targets` must lie in 0\.\.1 \(2 classes\); got -7 at position 0"),
        (
            {"probabilities": [[1.0], [1.0]]},
            r"`probabilities` must be float \(2, 2\), a row for each of 2 targets and a column for each of 2 "
            r"classes; got float64 \(2, 1\)",
        ),
        ({"probabilities": [[0.5, 0.5]]}, r"must be float \(2, 2\).*got float64 \(1, 2\)"),
        ({"probabilities": [["x", "y"]] * 2}, r"must be float \(2, 2\).*got <U1 \(2, 2\)"),
        (
            {"probabilities": [[0.5, 0.5], [0.1, float("nan")]]},
            r"`probabilities` must be finite and not negative; got nan at row 1, class 'b'",
        ),
        (
            {"probabilities": [[1.5, -0.5], [0.1, 0.9]]},
            r"`probabilities` must be finite and not negative; got -0\.5 at row 0, class 'b'",
        ),
        (
            {"probabilities": [[0.5, 0.5], [3.2, 1.0]]},
            r"each row of `probabilities` must sum to 1; row 1 sums to 4\.2: pass the output of the softmax, not",
        ),
        ({"classes": ["a"]}, r"`classes` must name at least two classes; got \['a'\]"),
        ({"classes": ["a", "a"]}, r"`classes` must be distinct; got 'a' twice"),
        ({"weights": [1.0]}, r"`weights` must be float \(2,\), one for each target; got float64 \(1,\)"),
        ({"weights": [1.0, 0.0]}, r"`weights` must be positive and finite; got 0 at position 1"),
        ({"weights": [float("nan"), 1]}, r"`weights` must be positive and finite; got nan at position 0"),
        ({"majority": "c"}, r"unknown majority class 'c'\. Known: a, b"),
        ({"top_k": 0}, r"`top_k` must be a positive int; got 0"),
        ({"top_k": 2.5}, r"`top_k` must be a positive int; got 2\.5"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(InputError, match=message):
        evaluate(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("log_loss"), "not a saved evaluation: it has no 'log_loss'"),
        (lambda d: d.update(interval=[1]), "not a saved evaluation: .*missing 1 required.*'high'"),
        (lambda d: d.update(top_k=[3]), "not a saved evaluation: 'list' object has no attribute 'items'"),
    ],
)
def test_from_dict_refuses(change, message):
    values = small().to_dict()
    change(values)
    with pytest.raises(InputError, match=message):
        Evaluation.from_dict(values)


def test_from_dict_ignores_what_a_later_version_adds():
    assert Evaluation.from_dict({**small().to_dict(), "new": 1}) == small()
