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

# A room imports only from rooms above it; files at the top are rooms of their own. Inside a room: no circle.
ORDER = """
errors progress parallel
recipe evaluation storage
data images graphs
backbones
features tfhub
heads
classifiers
checks tuning
runs
exports serving
jobs
cli
__main__
"""
ROOMS = {name: rank for rank, name in enumerate(ORDER.split())}


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


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(name) for name in TREES if name} == set(ROOMS)
    files = [path for path in SOURCE.iterdir() if path.suffix == ".py"]
    assert len(files) <= 6
    assert len([path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"]) <= 17


def test_every_room_says_what_it_is() -> None:
    for path in SOURCE.rglob("*.py"):
        assert ast.get_docstring(ast.parse((path.parent / "__init__.py").read_text(encoding="utf-8")))


def climbs(name: str, tree: ast.AST) -> set[str]:
    """The files that `name` imports from a room below its own, or from the top, in functions too."""
    found = {m.removeprefix("topwork.") for m in imported(tree) if m == "topwork" or m.startswith("topwork.")}
    return {o for o in found if room(o) != room(name) and ROOMS.get(room(o), len(ROOMS)) >= ROOMS[room(name)]}


@pytest.mark.parametrize("name", sorted(name for name in TREES if name))
def test_a_room_imports_only_from_rooms_above_it(name: str) -> None:
    assert not climbs(name, TREES[name])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Names of `graph` that import each other in a circle; none where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circle({name: imported_of_ours(name) for name in TREES if name})


def test_a_planted_import_is_found() -> None:
    """In a function, of a file or of the top, and a circle within a room."""
    for code, found in (
        ("def f():\n    from topwork.jobs.train import train", {"jobs.train"}),
        ("from topwork import __version__", {"topwork"}),
        ("import topwork.cli.main", {"cli.main"}),
        ("from topwork.errors import InputError", set()),
    ):
        assert climbs("heads.linear", ast.parse(code)) == found
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize(
    "package", sorted(n for n in TREES if n and n != "tfhub" and (SOURCE / n.replace(".", "/")).is_dir())
)
def test_a_packages_own_file_imports_nothing(package: str) -> None:
    assert imported(TREES[package]) <= {"__future__"}


def reached_from(name: str) -> set[str]:
    """All files of ours that importing `name` may bring in."""
    todo, seen = [name], set()
    while todo:
        todo += (new := imported_of_ours(todo.pop()) - seen)
        seen |= new
    return seen


@pytest.mark.parametrize("name", sorted(n for n in TREES if room(n) == "evaluation"))
def test_scores_never_see_a_model(name: str) -> None:
    assert {room(other) for other in reached_from(name)} <= {"errors", "evaluation"}


@pytest.mark.parametrize("name", sorted(n for n in TREES if room(n) == "data"))
def test_data_never_sees_a_pixel(name: str) -> None:
    assert {room(other) for other in reached_from(name)} <= {"errors", "storage", "data"}
    assert not {module.split(".")[0] for module in imported(TREES[name])} & {"PIL", "simplejpeg", "openvino"}


@pytest.mark.parametrize("name", ["cli.main", "cli.review", "cli.modules"])
def test_the_command_line_holds_no_logic(name: str) -> None:
    """It has no numbers to work on, no file to open, and no long function."""
    tree = TREES[name]
    allowed = {
        "__future__",
        "dataclasses",
        "importlib",
        "signal",
        "sys",
        "pathlib",
        "typing",
        "typer",
        "topwork",
    }
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


LEARN_OR_CONVERT = ("tuning.", "tfhub", "exports.", "graphs.trainable.", "backbones.conversion.", "data.tfds")


def test_no_other_file_imports_a_framework() -> None:
    for name, tree in TREES.items():
        if name.startswith(LEARN_OR_CONVERT):
            continue
        assert not {module.split(".")[0] for module in imported(tree)} & FRAMEWORKS, name


def test_nothing_is_pickled() -> None:
    picklers = {"pickle", "joblib", "dill", "shelve", "marshal"}
    users = {name for name, tree in TREES.items() if imported(tree) & picklers}
    assert users == {
        "backbones.torch_weights"
    }  # a reader that is restricted to arrays, for the published weights
    assert picklers & imported(TREES["backbones.torch_weights"]) == {"pickle"}
    used = {
        n.attr
        for n in ast.walk(TREES["backbones.torch_weights"])
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
        f"import sys; sys.argv = ['topwork', *{arguments}]\nfrom topwork.cli.main import main\n"
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
        assert getattr(topwork, name).__name__ == {"compare_runs": "diff", "write_report": "report"}.get(
            name, name
        )
    assert set(topwork.__all__) <= set(dir(topwork))
    with pytest.raises(AttributeError, match=r"module 'topwork' has no attribute 'trian'"):
        _ = topwork.trian


def test_each_verb_is_public() -> None:
    """But `serve`, `modules` and `cache`; `evaluate` takes labels and probabilities."""
    verbs = {"train", "evaluate", "predict", "finetune", "advise", "audit", "report", "diff", "export"}
    assert verbs <= set(topwork.__all__)
