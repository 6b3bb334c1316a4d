"""Export of a run or a module to another format, with a check that the file predicts the same as the run."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from topwork.backbones.backbone import LAST
from topwork.backbones.hub.resolve import Progress
from topwork.backbones.module import load_module
from topwork.classifiers.classifier import Classifier, versions
from topwork.classifiers.graph import attach
from topwork.data.dataset import Dataset
from topwork.errors import InputError, TopworkError, one_of
from topwork.exports import openvino_file
from topwork.exports.contents import HEAD, Contents
from topwork.exports.formats import Format, code_of, format_of
from topwork.exports.parity import Parity, compare
from topwork.exports.photos import Chosen, choose, pixels_of
from topwork.exports.resize import resizer, with_resizer
from topwork.graphs import features as graphs
from topwork.recipe import ExportFormat, ExportInput, ExportPrecision, PixelChoice

if TYPE_CHECKING:
    import openvino as ov

COVERAGES = (0.8, 0.9, 0.95, 0.99)  # of the prediction sets whose thresholds are written into the file
PARITY = ".parity.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported file or folder."""

    path: Path
    parity: Parity | None  # comparison with the run; None for the backbone alone
    contents: Contents | None


def export(
    run: str | Path,
    out: str | Path,
    *,
    format: ExportFormat,
    precision: ExportPrecision = "f32",
    input: ExportInput = "sized",
    data: Dataset | str | Path | None = None,
) -> Exported:
    """Write a run's complete classifier to the new file or folder `out`, and compare it with the run.

    The file takes `image`, uint8 RGB in [0, 255], and returns `probabilities` (N, K) and, with a rule for "none of
    these", `novelty` (N, 1), above 1 for an out-of-distribution picture. Pixel scaling, temperature and rule are
    part of the graph; class names and other facts (`Contents`) are in the format's metadata. The file is run in its
    own runtime on up to 200 of the run's photos, and `OUT.parity.json` reports the differences.

    Args:
        run: a folder that `train` wrote.
        out: the file or folder to create; it must not exist.
        format: "openvino", "onnx", "savedmodel", "litert", "keras"; or "tfhub": the backbone alone, as a reusable
            TF2 SavedModel that returns its last layer, (N, D), for float32 (N, S, S, 3) pictures in [0, 1].
        precision: of the stored weights; with "int8", convolutions are computed in it, too.
        input: "sized": pictures (N, S, S, 3), resized by the caller; "any": one picture (1, H, W, 3) of any size.
        data: the run's photos; None for where they were.

    Raises:
        InputError: not a run, an unknown format, an option that the format doesn't support, `out` exists, or the
            photos are missing.
        MissingExtra: a package that the format needs is not installed.
        TopworkError: the file's predictions differ from the run's; the file and its figures are kept.
    """
    classifier = Classifier.load(run)
    if format == "tfhub":
        if (precision, input) != ("f32", "sized"):
            raise InputError(
                f"tfhub: expected the precision 'f32' and the input 'sized'; got {precision!r} and {input!r}: "
                "a module that can be tuned is written as it is"
            )
        return Exported(_backbone(classifier, run, Path(out)), None, None)
    for name, value, known in (("precision", precision, ExportPrecision), ("input", input, ExportInput)):
        if value not in get_args(known):
            raise InputError(one_of(value, get_args(known), what=name))
    kind = format_of(format, precision=precision, input=input)
    path = _free(Path(out), kind)
    code = code_of(kind)
    chosen = choose(Path(run), data)
    contents = contents_of(classifier, precision=precision, input=input)
    graph = whole_graph(classifier)
    _write(code, kind, graph, contents, path, chosen)
    parity = _compared(code, kind, graph, contents, path, chosen)
    parity.write(path.with_name(path.name + PARITY))
    if not parity.holds:
        raise TopworkError(
            f"{path}: differs from {run} on {parity.images} pictures: the class is the same in "
            f"{parity.agreement:.1%} (required: {parity.allowed[1]:.0%}){_of_rejection(parity)}, probabilities "
            f"differ by up to {parity.gap:.2g} (allowed: {parity.allowed[0]:.2g}); don't ship it; its figures are "
            f"in {path.name}{PARITY}; {_mend(classifier, precision)}"
        )
    return Exported(path, parity, contents)


def contents_of(classifier: Classifier, *, precision: str, input: ExportInput) -> Contents:
    """The facts about a classifier that a user of the exported file needs."""
    facts, rule, calibration = classifier.backbone.facts, classifier.novelty, classifier.calibration
    scored = calibration is not None and calibration.images > 0
    return Contents(
        classes=classifier.classes,
        size_px=(facts.size_px, facts.size_px),
        input=input,
        fit=facts.fit,
        temperature=float(classifier.head.temperature),
        reject_threshold=float(rule.threshold) if rule else None,
        reject_rate=float(rule.rate) if rule else None,
        least_probability={f"{c:.2f}": classifier.least_probability(c) for c in COVERAGES} if scored else {},
        backbone=str(facts),
        licence=facts.license,
        precision=precision,
        versions=versions(),
    )


def whole_graph(classifier: Classifier) -> ov.Model:
    """`image` uint8 (1, S, S, 3) → `probabilities`, `novelty`; names of nodes outside the backbone start with
    `HEAD`."""
    import openvino as ov

    facts, rule = classifier.backbone.facts, classifier.novelty
    known = {node.get_friendly_name() for node in classifier.backbone.graph.get_ordered_ops()}
    graph = attach(
        classifier.backbone.graph,
        classifier.head,
        facts.columns(classifier.blocks),
        novelty=(rule, facts.columns((LAST,))) if rule else None,
    )
    wanted = ["probabilities", "novelty"] if rule else ["probabilities"]
    sources = [graph.output(name).get_node().input_value(0) for name in wanted]
    whole = ov.Model(sources, graph.get_parameters(), "topwork")
    for output, name in zip(whole.outputs, wanted, strict=True):
        output.set_names({name})
    for number, node in enumerate(whole.get_ordered_ops()):
        if node.get_friendly_name() not in known and node.get_type_name() != "Result":
            node.set_friendly_name(f"{HEAD}{node.get_type_name().lower()}_{number}")
    return whole


def _mend(classifier: Classifier, precision: str) -> str:
    """What to try. Rounding affects early stages most: many averages are almost 0, and roots are taken of them."""
    mend = "try another --precision or --format"
    stages = precision != "f32" and classifier.blocks != (LAST,)
    return f"{mend}, or train with --features last, which rounding moves less" if stages else mend


def _of_rejection(parity: Parity) -> str:
    return "" if parity.rejection is None else f', "none of these" in {parity.rejection:.1%}'


def publish_module(
    handle: str,
    out: str | Path,
    *,
    size_px: int | None = None,
    pixels: PixelChoice = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write a module's trunk to the new folder `out` as `export` writes a run's, format "tfhub"."""
    from topwork.exports.tfhub_module import publish_backbone

    module = load_module(handle, size_px=size_px, range=pixels, progress=progress)
    return publish_backbone(graphs.pool(module.graph, [LAST]), Path(out), size_px=module.size_px)


def _backbone(classifier: Classifier, run: str | Path, out: Path) -> Path:
    facts = classifier.backbone.facts
    if facts.views != "one":
        raise InputError(
            f"{run}: its features are averages over {facts.views} views, which can't be fine-tuned; publish the "
            f"network by itself: topwork modules publish {facts.handle} --out {out}"
        )
    from topwork.exports.tfhub_module import publish_backbone

    return publish_backbone(graphs.last_layer(classifier.backbone.graph), out, size_px=facts.size_px)


def _free(out: Path, kind: Format) -> Path:
    """The path of the export, where nothing exists yet."""
    if kind.suffix and not out.suffix:
        out = out.with_name(out.name + kind.suffix)
    if kind.suffix and out.suffix != kind.suffix:
        raise InputError(f"{out}: a file of the format {kind.name} ends in {kind.suffix}; rename --out")
    taken = next((p for p in (out, out.with_name(out.name + PARITY)) if p.exists()), None)
    if taken is not None:
        raise InputError(f"{taken}: already exists, and nothing is overwritten; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: its folder can't be created ({error.strerror}); choose another --out"
        ) from None
    return out


def _write(code: Any, kind: Format, graph: ov.Model, contents: Contents, path: Path, chosen: Chosen) -> None:
    """Write to a temporary folder, then move, so that `path` is always complete."""
    options: dict[str, Any] = {}
    if contents.input == "any" and kind.name in ("savedmodel", "litert"):
        options["resize"] = resizer(contents)
    elif contents.input == "any" and (kind.name, contents.precision) == ("openvino", "int8"):
        options["finish"] = lambda quantised: with_resizer(quantised, contents)
    elif contents.input == "any":
        graph = with_resizer(graph, contents)
    pictures = np.zeros((0, *contents.size_px, 3), np.uint8)
    if contents.precision == "int8":
        pictures = np.stack(
            [p for _, p in pixels_of(chosen.calibrating, contents.size_px[0], fit=contents.fit)]
        )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
            part = Path(beside) / path.name
            code.write(graph, contents, part, precision=contents.precision, pictures=pictures, **options)
            shutil.move(part, path)
    except OSError as error:
        raise TopworkError(
            f"{path}: can't be written ({error.strerror or error}); choose another --out"
        ) from error


def _compared(
    code: Any, kind: Format, graph: ov.Model, contents: Contents, path: Path, chosen: Chosen
) -> Parity:
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference"
        sized = replace(contents, input="sized", precision="f32")
        openvino_file.write(graph, sized, reference, precision="f32", pictures=np.zeros(0))
        original = openvino_file.load(reference)
    return compare(
        original,
        code.load(path),
        chosen.compared,
        contents,
        format=kind.name,
        runtime=kind.runtime,
        part=chosen.part,
    )
