"""Whether exported classifiers say what the run says: every format, of three networks, on cells of the test part.

    python -m benchmarks.parity.export_parity [--images 200] [--only builtin savedmodel onnx]
        [--precisions f32 fp16 bf16 int8] [--work benchmarks/work] [--rows ROWS.jsonl] [--seed 0]

A run is trained on the ELPV cells (`topwork demo`'s own split) with each of

- builtin: `efficientnet-lite0`, 224 px;
- savedmodel: MobileNetV3Small of `keras.applications` with random weights, batch norms that have the statistics of
  twelve cells, saved by Keras as a SavedModel for pixels in [0, 1], 224 px: it is not meant to classify well;
- onnx: EfficientNet-Lite1's published weights in an ONNX file for pixels in [0, 1], 240 px, written by Topwork's own
  writer of nodes.

and exported. Each file is read in its own runtime and given the same cells as `Classifier.predict`, one by one: so it
is compared with what predicts and serves, not with the graph that it was made from. float32 on `--images` cells drawn
from the test part; smaller numbers on all of the test part, since what counts there is the accuracy. `--input any`
with the built-in network. "tfhub" holds the trunk only: its features are compared, relative (L2), the largest of all
cells. With --rows, a broken-off run goes on where it was; runs and networks in --work are used again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import WORK, shared_options
from benchmarks.parity.keras_applications import stir
from topwork.backbones.backbone import LAST
from topwork.backbones.efficientnet_lite import build
from topwork.backbones.engine import compile_graph
from topwork.classifiers.classifier import DESCRIPTION, Classifier
from topwork.cli.demo import load_cells, split_cells
from topwork.data.dataset import Dataset, Example
from topwork.errors import TopworkError
from topwork.evaluation.significance import mcnemar
from topwork.exports.formats import code_of, format_of
from topwork.exports.onnx.file import convert
from topwork.exports.photos import whole_pixels
from topwork.images.decode import decode
from topwork.jobs.export import PARITY, export
from topwork.jobs.train import train
from topwork.recipe import BackboneRecipe, Recipe

NETWORKS = ("builtin", "savedmodel", "onnx")
PLAIN = ("openvino", "onnx", "savedmodel", "litert", "keras")
SMALLER = (
    ("openvino", "fp16"), ("openvino", "bf16"), ("openvino", "int8"),
    ("onnx", "fp16"), ("onnx", "int8"), ("litert", "fp16"),
)  # fmt: skip
RESIZING = ("openvino", "onnx", "savedmodel", "litert")
SAVEDMODEL_PX, ONNX_PX, SEEN = 224, 240, 12
Array = np.ndarray[Any, Any]
Row = dict[str, Any]
Plan = tuple[str, str, str]


def main() -> None:
    parser = shared_options(__doc__, images=200, only=list(NETWORKS), work=WORK, rows=None, seed=0)
    parser.add_argument("--precisions", nargs="+", default=["f32", "fp16", "bf16", "int8"])
    options = parser.parse_args()
    work = options.work / "export_parity"
    work.mkdir(parents=True, exist_ok=True)
    kept = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = [json.loads(line) for line in kept]
    cells, types = load_cells()
    cells = split_cells(cells, types, seed=options.seed)
    for name in options.only:
        recipe = BackboneRecipe(**network(name, cells, work, options.seed), precision="f32")
        run = work / f"run-{name}"
        if not (run / DESCRIPTION).exists():
            train(cells, run, recipe=Recipe(recipe), overwrite=True)
        known = {(r["format"], r["precision"], r["input"]) for r in rows if r["network"] == name}
        plans = [p for p in planned(name) if p not in known and p[1] in options.precisions]
        for row in measured(name, run, cells, options.images, options.seed, plans, work / "out"):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if options.rows:
                with options.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(rows))


def network(name: str, cells: Dataset, work: Path, seed: int) -> dict[str, Any]:
    """The handle of a network, which is made if need be, and how it is to be taken."""
    if name == "builtin":
        return {"handle": "efficientnet-lite0"}
    path = work / {"savedmodel": "mobilenet_v3_small", "onnx": "lite1.onnx"}[name]
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        shutil.rmtree(part, ignore_errors=True)
        if name == "onnx":
            write_onnx(part)
        else:
            write_savedmodel(part, cells, seed)
        part.rename(path)
    return {"handle": str(path), "pixels": "0..1", "size_px": ONNX_PX if name == "onnx" else SAVEDMODEL_PX}


def write_savedmodel(path: Path, cells: Dataset, seed: int) -> None:
    import keras

    keras.utils.set_random_seed(seed)
    image = keras.Input((SAVEDMODEL_PX, SAVEDMODEL_PX, 3), name="image")
    model = keras.applications.MobileNetV3Small(
        include_top=False,
        pooling="avg",
        weights=None,
        include_preprocessing=False,
        input_tensor=keras.layers.Rescaling(2.0, offset=-1.0)(image),
    )
    seen = [decode(example.image.read(), SAVEDMODEL_PX) for example in cells.take(SEEN)]
    stir(model, np.stack(seen).astype(np.float32) / 255, np.random.default_rng(seed))
    model.export(path, format="tf_saved_model", verbose=False)


def write_onnx(path: Path) -> None:
    """`image` float32 (N, S, S, 3) in [0, 1] → `features` (N, 1280)."""
    import onnx
    import openvino as ov
    from openvino import opset13 as op

    graph = build("efficientnet-lite1", size_px=ONNX_PX)
    old = graph.get_parameters()[0]
    (entry,) = old.output(0).get_target_inputs()  # the cast to float32
    image = op.parameter(ov.PartialShape([-1, ONNX_PX, ONNX_PX, 3]), ov.Type.f32, name="image")
    image.output(0).set_names({"image"})
    levels = op.multiply(image, op.constant(np.float32(255)))
    for target in entry.get_node().output(0).get_target_inputs():
        target.replace_source_output(levels.output(0))
    features = op.reduce_mean(graph.output("last").get_node().input_value(0), op.constant([2, 3]), False)
    features.output(0).set_names({"features"})
    onnx.save(convert(ov.Model([features], [image], "lite1")), str(path))


def planned(name: str) -> list[Plan]:
    """Format, precision and input of each file."""
    plans = [(format, "f32", "sized") for format in (*PLAIN, "tfhub")] + [
        (*pair, "sized") for pair in SMALLER
    ]
    return plans + ([(format, "f32", "any") for format in RESIZING] if name == "builtin" else [])


def measured(
    name: str, run: Path, cells: Dataset, count: int, seed: int, plans: list[Plan], out: Path
) -> Iterator[Row]:
    """A row for each file, exported and read."""
    classifier = Classifier.load(run)
    test = [example for example in cells if example.split == "test"]
    drawn = np.sort(np.random.default_rng(seed).permutation(len(test))[:count])
    few = [test[i] for i in drawn]
    own = predicted(classifier, test)
    for format, precision, input in plans:
        used = few if precision == "f32" else test
        expected = {key: value[drawn] for key, value in own.items()} if used is few else own
        path, told = exported(run, cells, out, format=format, precision=precision, input=input)
        row = {"network": name, "format": format, "precision": precision, "input": input, "own_check": told}
        if path is None:
            yield row | {"images": 0}
        elif format == "tfhub":
            yield row | {"images": len(few), "features": features_gap(path, classifier, few)}
        else:
            answers = read(path, classifier, used, format=format, precision=precision, input=input)
            yield row | gaps(expected, answers, [example.label for example in used], classifier)


def predicted(classifier: Classifier, examples: list[Example]) -> dict[str, Array]:
    """What the run itself says."""
    found = list(classifier.predict(Dataset(tuple(examples), classifier.classes, "cells")))
    answers = {"probabilities": np.stack([p.probabilities for p in found if p.probabilities is not None])}
    if classifier.novelty is not None:
        answers["novelty"] = np.array([p.novelty for p in found])
    return answers


def exported(run: Path, cells: Dataset, out: Path, **options: Any) -> tuple[Path | None, str]:
    """The file, in the place of the last one, None where it wasn't written; and what its own check said."""
    for old in (*out.parent.glob(f"{out.name}.*"), out):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    try:
        return export(run, out, data=cells, **options).path, "holds"
    except TopworkError as error:
        left = [p for p in out.parent.glob(f"{out.name}*") if not p.name.endswith(PARITY)]
        return (left[0] if left else None), str(error)


def read(path: Path, classifier: Classifier, examples: list[Example], **options: str) -> dict[str, Array]:
    """What the file says in its own runtime."""
    facts = classifier.backbone.facts
    kind = format_of(options["format"], precision=options["precision"], input=options["input"])
    answer: Callable[[Array], dict[str, Array]] = code_of(kind).load(path)
    found = []
    for example in examples:
        whole = options["input"] == "any"
        pixels = (
            whole_pixels(example) if whole else decode(example.image.read(), facts.size_px, fit=facts.fit)
        )
        found.append({key: np.ravel(value) for key, value in answer(pixels[None]).items()})
    return {key: np.stack([each[key] for each in found]).squeeze() for key in found[0]}


def gaps(
    own: dict[str, Array], found: dict[str, Array], labels: list[str | None], classifier: Classifier
) -> Row:
    p, q = (answers["probabilities"].astype(np.float64) for answers in (own, found))
    truth = np.array([classifier.classes.index(label) for label in labels if label is not None])
    right, right_of_file = p.argmax(axis=1) == truth, q.argmax(axis=1) == truth
    change = mcnemar(right_of_file, right)
    row = {
        "images": len(p),
        "same_class": int((p.argmax(axis=1) == q.argmax(axis=1)).sum()),
        "gap": float(np.abs(p - q).max()),
        "closest": float(np.abs(p[:, 0] - p[:, 1]).min()),
        "accuracy": float(right.mean()),
        "change": change.difference,
        "interval": [change.interval.low, change.interval.high],
    }
    if "novelty" in own:
        row["same_rejected"] = int(((own["novelty"] > 1) == (found["novelty"] > 1)).sum())
        row["novelty_gap"] = float((np.abs(own["novelty"] - found["novelty"]) / own["novelty"]).max())
    return row


def features_gap(path: Path, classifier: Classifier, examples: list[Example]) -> float:
    import tensorflow as tf

    facts = classifier.backbone.facts
    network, module = compile_graph(classifier.backbone, threads=1), tf.saved_model.load(str(path))
    most = 0.0
    for example in examples:
        pixels = decode(example.image.read(), facts.size_px, fit=facts.fit)
        own = network([pixels[None]])[0][0][facts.columns((LAST,))]
        found = module(tf.constant(pixels[None], tf.float32) / 255.0).numpy()[0]
        most = max(most, float(np.linalg.norm(found - own) / np.linalg.norm(own)))
    return most


def table(rows: list[Row]) -> str:
    lines = [
        "| network | format | numbers | input | cells | same class | largest difference of a probability "
        '| "none of these" alike | accuracy: change (95 %) | its own check |',
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = (
            f"| {row['network']} | {row['format']} | {row['precision']} | {row['input']} | {row['images']} | "
        )
        end = "holds" if row["own_check"] == "holds" else "fails"
        if "gap" not in row:
            told = f"features: {row['features']:.1e}" if "features" in row else "not written"
            lines.append(f"{start}{told} | | | | {end} |")
            continue
        low, high = (100 * side for side in row["interval"])
        change = (
            "" if row["precision"] == "f32" else f"{100 * row['change']:+.2f} ({low:+.1f} to {high:+.1f})"
        )
        lines.append(
            f"{start}{row['same_class']} | {row['gap']:.1e} | {row.get('same_rejected', '')} | {change} | {end} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
