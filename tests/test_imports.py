"""What is imported when, and by whom: the rules of the layout."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import topwork
from photos import SIZE_PX, finished, start_python

SOURCE = Path(topwork.__file__).parent
FRAMEWORKS = {"tensorflow", "keras", "torch", "jax"}
HEAVY = {"openvino", "scipy", "sklearn", "pyarrow", "tensorboardX", "PIL", "simplejpeg"} | FRAMEWORKS

# A file imports only from above it; those on one line don't import each other.
ORDER = """
checks.findings checks.labels digests errors exports.onnx_sheet geometry heads.lbfgs
hub.applications hub.catalog learning_curve novelty tensorboard watch
calibration console data.dataset database exports.formats exports.onnx_axes exports.onnx_spatial
exports.quantising heads.head heads.logistic hub.connect hub.folder hub.trunk hub.weights imagefile neighbours
printing_audit recipe serving.settings significance tfhub.frameworks tuning.checkpoint
cache checks.fixes data.grouping data.layout data.split data.tfrecord exports.contents
exports.onnx_nodes graph
heads.centroid heads.headfile heads.linear heads.mlp hub.builtin hub.https hub.pixels hub.unpack
images metrics rowfile serving.intake serving.wire serving.work tfhub.shapes tfhub.traces tfhub.weights
tuning.augment tuning.verdict
data.folder data.hosted data.manifest data.unpack evaluation exports.onnx_file
exports.openvino_file exports.resizing heads.kernel hub.converted hub.handle hub.modules hub.plain
hub.reading serving.metrics store tuning.plan
data.archive data.huggingface data.listing data.tfds hub.download hub.foreign hub.tracing
reporting.charts scorecard serving.guard tuning.values
data.sources hub.convert hub.huggingface hub.kaggle tuning.elementwise tuning.spatial
hub.resolve tuning.axes
hub.module tfhub.loading tuning.operators
backbone hub.collection tfhub.choosing tuning.trainable
engine exports.tensorflow_graph publish tfhub.layer tuning.cuts tuning.learner
checks.looks exports.keras_file exports.litert exports.savedmodel features reporting.pictures
tuning.activations tuning.choice tuning.native
checks.registration
checks.duplicates checks.pictures classifier evidence heads.fitting tuning.sources
attention checks.inspection forecasting growth runfolder tuning.lesson
checking comparing exports.pictures reporting.content serving.models tuning.loop
advice exports.parity printing_diff resuming runimages reporting.frame serving.answers serving.kserve tuning.start
exporting printing_advice reporting.audit_page reporting.page serving.app tuning.blend tuning.trial
auditing reporting.writing tuning.tune
cli_checks finetuning printing_export serving.running
cli_export cli_serve printing_tuning training
printing
cli_modules cli_tuning demo predicting
cli_predict
cli
__main__
"""
RANK = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}


def modules() -> dict[str, ast.Module]:
    """Each file's syntax tree by its name: `data.split`, `data` for a package's own file."""
    trees = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


TREES = modules()


def imported(tree: ast.AST) -> set[str]:
    """The whole names of all modules that are imported anywhere in `tree`; of ours, which file."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in inner if name.removeprefix("topwork.") in TREES}
            names |= ours or {str(node.module)}
    return names


def imported_of_ours(name: str) -> set[str]:
    found = {m.removeprefix("topwork.") for m in imported(TREES[name]) if m.startswith("topwork.")}
    return found - {name}


def test_every_file_has_its_place_in_the_order() -> None:
    files = {name for name in TREES if name and not (SOURCE / name.replace(".", "/")).is_dir()}
    assert files == set(RANK)


@pytest.mark.parametrize("name", sorted(RANK))
def test_a_file_imports_only_from_above_it(name: str) -> None:
    for other in imported_of_ours(name):
        assert RANK[other] < RANK[name], f"{name} imports {other}, which stands below it or beside it"


@pytest.mark.parametrize("package", ["data", "heads", "hub", "tuning"])
def test_a_packages_own_file_imports_nothing(package: str) -> None:
    assert imported(TREES[package]) <= {"__future__"}


def reached_from(name: str) -> set[str]:
    """All files of ours that importing `name` may bring in."""
    todo, seen = [name], set()
    while todo:
        todo += (new := imported_of_ours(todo.pop()) - seen)
        seen |= new
    return seen


@pytest.mark.parametrize("name", ["evaluation", "metrics", "significance", "scorecard"])
def test_scores_never_see_a_model(name: str) -> None:
    assert reached_from(name) <= {"errors", "significance", "metrics", "evaluation"}


@pytest.mark.parametrize("name", sorted(n for n in RANK if n.startswith("data.")))
def test_data_never_sees_a_pixel(name: str) -> None:
    outside = {other for other in reached_from(name) if not other.startswith("data.")}
    assert outside <= {"errors", "cache", "database"}
    assert not {module.split(".")[0] for module in imported(TREES[name])} & {"PIL", "simplejpeg", "openvino"}


@pytest.mark.parametrize("name", ["cli", "cli_checks", "cli_modules"])
def test_the_command_line_holds_no_logic(name: str) -> None:
    """It has no numbers to work on, no file to open, and no long function."""
    tree = TREES[name]
    allowed = {"__future__", "dataclasses", "signal", "sys", "pathlib", "typing", "typer", "topwork"}
    assert {module.split(".")[0] for module in imported(tree)} <= allowed
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While)]
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }
    assert "open" not in called
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            lines = node.body[-1].end_lineno - node.body[0].lineno + 1
            assert lines <= 25, f"{node.name} has {lines} lines"


LEARN_OR_CONVERT = ("tuning.", "tfhub", "publish", "exports.", "hub.convert", "hub.tracing", "data.tfds")


def test_no_other_file_imports_a_framework() -> None:
    for name, tree in TREES.items():
        if name.startswith(LEARN_OR_CONVERT):
            continue
        assert not {module.split(".")[0] for module in imported(tree)} & FRAMEWORKS, name


def test_nothing_is_pickled() -> None:
    picklers = {"pickle", "joblib", "dill", "shelve", "marshal"}
    users = {name for name, tree in TREES.items() if imported(tree) & picklers}
    assert users == {"hub.weights"}  # a reader that is restricted to arrays, for the published weights
    assert picklers & imported(TREES["hub.weights"]) == {"pickle"}
    used = {
        n.attr
        for n in ast.walk(TREES["hub.weights"])
        if isinstance(n, ast.Attribute) and name_of(n) == "pickle"
    }
    assert used <= {"Unpickler", "UnpicklingError"}


def name_of(node: ast.Attribute) -> str | None:
    return node.value.id if isinstance(node.value, ast.Name) else None


def loaded_by(code: str) -> set[str]:
    """The top-level packages, and the inner ones of rich, that are loaded after `code` ran in a fresh process."""
    show = (
        "import sys\nshown = {m if m.startswith('rich.') else m.split('.')[0] for m in sys.modules}\n"
        "print('|', *sorted(shown))"
    )
    status, out, err = finished(start_python(f"{code}\n{show}"))
    assert (status, err) == (0, "")
    return set(out.split("|")[-1].split())


def test_import_topwork_is_light() -> None:
    loaded = loaded_by("import topwork; topwork.__version__; dir(topwork)")
    assert not loaded & (HEAVY | {"numpy", "typer", "rich", "sqlite3"})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["--version"], ["train"], ["cache", "info"]]
)
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['topwork', *{arguments}]\nfrom topwork.cli import main\n"
        "sys.stderr = open('/dev/null', 'w')\ntry: main()\nexcept SystemExit: pass\nsys.stderr = sys.__stderr__"
    )
    loaded = loaded_by(code)
    assert not loaded & HEAVY
    assert "rich.progress" not in loaded
    if arguments[0] != "cache":
        assert "numpy" not in loaded


@pytest.mark.slow
def test_training_loads_no_framework(shapes: Path, tmp_path: Path) -> None:
    code = (
        "import topwork\nfrom topwork.recipe import *\n"
        f"r = Recipe(BackboneRecipe(size_px={SIZE_PX}, precision='f32'), head=HeadRecipe('mlp'))\n"
        f"run = topwork.train({str(shapes)!r}, {str(tmp_path / 'run')!r}, recipe=r)\n"
        f"list(topwork.Classifier.load(run.path).predict({str(shapes)!r}))"
    )
    loaded = loaded_by(code)
    assert not loaded & (FRAMEWORKS | {"sklearn", "scipy", "pyarrow"})
    assert {"openvino", "numpy", "topwork"} <= loaded


def test_public_names() -> None:
    for name in topwork.__all__:
        assert getattr(topwork, name).__name__ == name
    assert set(topwork.__all__) <= set(dir(topwork))
    with pytest.raises(AttributeError, match=r"module 'topwork' has no attribute 'trian'"):
        _ = topwork.trian
