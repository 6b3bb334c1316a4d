from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import topwork
from photos import SHAPES, SIZE_PX, Topwork, one_line, start, write_shapes
from topwork.cli.main import app
from topwork.jobs.train import Run

QUICK = ("--size", SIZE_PX, "--precision", "f32")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good picture and one that is none, in a folder without classes."""
    folder = tmp_path_factory.mktemp("broken")
    write_shapes(folder, 1, first=800, labels=("circle",))
    (folder / "circle" / "bad.jpg").write_bytes(b"no picture")
    return folder / "circle"


# train


def test_train_tells_the_score_and_what_next(call: Topwork, shapes: Path, tmp_path: Path) -> None:
    code, out, err = call("train", shapes, "--out", tmp_path / "run", *QUICK)
    assert code == 0
    assert re.fullmatch(
        r"test accuracy [\d.]+ % \(95 %: .*\); the audit, the report and the files follow\n", err
    )
    assert "3 classes, 60 images (48 train, 12 test); features of" in out
    assert "accuracy " in out
    assert "(95 %: " in out
    assert (
        f"Next: open {tmp_path / 'run' / 'report.html'}, or run: topwork predict {tmp_path / 'run'} PHOTOS"
        in out
    )


def test_train_json_is_one_object_and_nothing_else(call: Topwork, shapes: Path, tmp_path: Path) -> None:
    for head in ("linear", "mlp", "centroid"):
        out_folder = tmp_path / head
        code, out, err = call("train", shapes, "--out", out_folder, *QUICK, "--head", head, "--json")
        assert code == 0
        told = json.loads(out)
        assert out.count("\n") == 1
        assert told["run"] == str(out_folder)
        assert told["classes"] == list(SHAPES)
        assert told["test"]["n"] == 12
        assert (
            0 <= told["test"]["interval"][0] <= told["test"]["accuracy"] <= told["test"]["interval"][1] <= 1
        )
        assert told["seconds"]["total"] > 0
        assert told["splits"] == {"train": 48, "validation": 0, "test": 12}
        assert told["head"]["kind"] == head
        assert ("step    10  loss" in err) == (head == "mlp")


def test_train_json_without_a_test(call: Topwork, shapes: Path, tmp_path: Path) -> None:
    code, out, _ = call("train", shapes, "--out", tmp_path / "run", *QUICK, "--test", "0", "--json")
    assert code == 0
    assert json.loads(out)["test"] is None
    code, out, _ = call("train", shapes, "--out", tmp_path / "run2", *QUICK, "--test", "0")
    assert "too few images for a test set: add photos, or increase --test" in out


def test_settings_come_from_the_recipe_and_then_the_options(
    call: Topwork, run: Run, shapes: Path, tmp_path: Path
) -> None:
    options = ("--recipe", run.path / "recipe.toml", "--head", "centroid", "--class-weight", "balanced")
    code, _, _ = call("train", shapes, "--out", tmp_path / "run", *options, "--seed", 5, "--json")
    assert code == 0
    recipe = topwork.Recipe.load(tmp_path / "run" / "recipe.toml")
    assert (recipe.backbone.size_px, recipe.backbone.precision) == (SIZE_PX, "f32")
    assert (recipe.head.kind, recipe.head.class_weight, recipe.split.seed) == ("centroid", "balanced", 5)


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("", (), (False, True, False)),
        ("strict = true\n[split]\ncopies = false", (), (True, False, False)),
        ("[split]\ncopies = false", ("--strict", "--copies"), (True, True, False)),
        ("[finetune]\nmode = 'auto'", ("--no-copies", "--turns"), (False, False, True)),
        ("[finetune]\nmode = 'auto'\naugment.turns = true", ("--no-turns",), (False, True, False)),
    ],
)
def test_yes_and_no_of_a_recipe_and_of_the_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, options: tuple[str, ...], expected: object
) -> None:
    """What is not given stays as it is in the recipe, for a flag without a `--no-` too."""
    seen: list[topwork.Recipe] = []
    monkeypatch.setattr("topwork.jobs.train.train", lambda *_, recipe, **__: seen.append(recipe))
    monkeypatch.setattr("topwork.cli.text.run.run_text", lambda _: "")
    (tmp_path / "recipe.toml").write_text(file, encoding="utf-8")
    app(
        ["train", "photos", "--out", "run", "--recipe", str(tmp_path / "recipe.toml"), *options],
        standalone_mode=False,
    )
    (recipe,) = seen
    assert (recipe.strict, recipe.split.copies, recipe.finetune.augment.turns) == expected


def test_a_run_can_be_made_again_from_its_recipe(
    call: Topwork, run: Run, shapes: Path, tmp_path: Path
) -> None:
    code, _, _ = call("train", shapes, "--out", tmp_path / "run", "--recipe", run.path / "recipe.toml")
    assert code == 0
    for name in ("head.npz", "model.bin", "splits.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (run.path / name).read_bytes()


def test_what_was_left_out_is_told(call: Topwork, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 4)
    for number in range(7):
        (photos / "circle" / f"bad{number}.jpg").write_bytes(b"no picture")
    _, out, _ = call("train", photos, "--out", tmp_path / "run", *QUICK)
    assert "left out: 7 (the run's report.json lists all)\n  circle/bad0.jpg: " in out
    assert "circle/bad4.jpg: " in out
    assert "circle/bad5.jpg" not in out
    _, out, _ = call("train", photos, "--out", tmp_path / "run2", *QUICK, "--json")
    assert len(json.loads(out)["left_out"]) == 7


# predict


def test_predict_folder_glob_file_and_standard_input(call: Topwork, run: Run, fresh: Path) -> None:
    files = sorted(map(str, fresh.rglob("*.png")))
    expected = call("predict", run.path, fresh)
    assert expected[0] == 0
    assert [line.split(": ")[0] for line in expected[1].splitlines()] == files
    assert all(line.endswith(" %") for line in expected[1].splitlines())
    assert call("predict", run.path, f"{fresh}/*/*.png") == expected
    assert call("predict", run.path, *files) == expected
    assert call("predict", run.path, "-", stdin="\n".join([*files, "", ""])) == expected
    assert call("predict", run.path, files[0], "-", stdin="\n".join(files[1:])) == expected


def test_predict_json(call: Topwork, run: Run, broken: Path) -> None:
    code, out, err = call("predict", run.path, broken, "--json", "--top", 2)
    assert (code, err) == (0, "")
    good, bad = json.loads(out)
    assert good["image"] == str(broken / "800.png")
    assert (good["class"], good["probability"]) == (good["top"][0]["class"], good["top"][0]["probability"])
    assert len(good["top"]) == 2
    assert good["top"][0]["probability"] >= good["top"][1]["probability"]
    assert (set(bad), bad["image"]) == ({"image", "error"}, str(broken / "bad.jpg"))
    assert out.count("\n") == 1


def test_predict_csv(call: Topwork, run: Run, broken: Path) -> None:
    code, out, err = call("predict", run.path, broken, "--csv", "--top", 2)
    assert (code, err) == (0, "")
    good, bad = csv.DictReader(io.StringIO(out))
    assert list(good) == ["image", "class", "probability", "class_2", "probability_2", "rejected", "error"]
    assert good["class"] in SHAPES
    assert float(good["probability"]) >= float(good["probability_2"])
    assert good["error"] == bad["class"] == bad["probability_2"] == ""
    assert (bad["image"], bool(bad["error"])) == (str(broken / "bad.jpg"), True)


def test_predict_where_nothing_can_be_read(call: Topwork, run: Run, broken: Path, tmp_path: Path) -> None:
    code, out, err = call("predict", run.path, broken / "bad.jpg", "--json")
    assert (code, err) == (1, "")
    assert set(json.loads(out)[0]) == {"image", "error"}
    code, out, _ = call("predict", run.path, broken / "bad.jpg", tmp_path / "gone.jpg", f"{tmp_path}/*.none")
    assert code == 1
    assert f"{broken / 'bad.jpg'}: can't be read: " in out
    assert f"{tmp_path / 'gone.jpg'}: can't be read: no such file\n" in out
    assert f"{tmp_path}/*.none: can't be read: no file matches this pattern\n" in out


def test_predict_top_is_a_number_from_one(call: Topwork, run: Run, fresh: Path) -> None:
    for top in (0, -1, "two"):
        code, out, err = call("predict", run.path, fresh, "--top", top)
        assert (code, out) == (2, "")
        assert "--top" in err
    _, out, _ = call("predict", run.path, fresh / "circle" / "700.png", "--top", 99, "--json")
    assert sorted(item["class"] for item in json.loads(out)[0]["top"]) == list(SHAPES)


# evaluate


def test_evaluate(call: Topwork, run: Run, fresh: Path) -> None:
    code, out, err = call("evaluate", run.path, fresh)
    assert (code, err) == (0, "")
    assert "accuracy " in out
    assert ", 9 images)" in out
    code, out, err = call("evaluate", run.path, fresh, "--json")
    told = json.loads(out)
    assert (code, err, told["n"], told["learned_from"]) == (0, "", 9, 0)
    assert out.count("\n") == 1


def test_evaluate_warns_of_images_that_were_learned_from(call: Topwork, run: Run, shapes: Path) -> None:
    code, out, err = call("evaluate", run.path, shapes, "--json")
    assert (code, json.loads(out)["learned_from"]) == (0, 48)
    assert err == ("warning: 48 of these 60 images were used in training, so the score is overoptimistic\n")


def test_evaluate_on_unknown_classes(call: Topwork, run: Run, fresh: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(fresh, tmp_path / "photos"))
    (photos / "square").rename(photos / "sqare")
    one_line(
        call("evaluate", run.path, photos), "has the class 'sqare'; rename the folder or column, or train"
    )


def test_evaluate_needs_the_list_of_what_was_learned_from(
    call: Topwork, run: Run, fresh: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(run.path, tmp_path / "run"))
    (out / "splits.csv").unlink()
    one_line(call("evaluate", out, fresh), "it has no splits.csv")


# cache


def test_cache_info_and_clear(call: Topwork, shapes: Path, tmp_path: Path, cache: Path) -> None:
    code, out, _ = call("cache", "info")
    assert (code, out) == (0, f"{cache}: 0 bytes\n")
    call("train", shapes, "--out", tmp_path / "run", *QUICK, "--json")
    code, out, err = call("cache", "info", "--json")
    told = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert told["root"] == str(cache)
    thumbnails, store = sorted(told["stores"], key=lambda s: str(s["about"]), reverse=True)
    assert (thumbnails["rows"], thumbnails["about"]) == (60, "thumbnails of 48 px")
    assert (store["rows"], store["about"]) == (60, f"efficientnet-lite0 at {SIZE_PX} px, f32")
    assert told["total_bytes"] >= store["size_bytes"] > 0
    code, out, _ = call("cache", "info")
    assert "  60 images  " in out
    one_line(call("cache", "clear", "ffff0000ffff"), "'ffff0000ffff' matches 0. Known: ")
    code, out, _ = call("cache", "clear", store["fingerprint"][:12])
    assert code == 0
    assert out.startswith("freed ")
    assert [s["about"] for s in json.loads(call("cache", "info", "--json")[1])["stores"]] == [
        "thumbnails of 48 px"
    ]
    code, out, _ = call("cache", "clear")
    assert code == 0


# the program


def test_version_and_help(call: Topwork) -> None:
    assert call("--version") == (0, f"topwork {topwork.__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0
    for command in ("train", "evaluate", "predict", "demo", "cache"):
        assert f"  {command} " in out
    code, _, err = call("trian")
    assert code == 2
    assert "'train'" in err


def test_help_tells_each_option_with_its_default(call: Topwork) -> None:
    _, out, _ = call("train", "--help")
    told = " ".join(out.split())
    for text in ("Data: ", "Network: ", "Classifier: ", "Fine-tuning: ", "Output: "):
        assert text in told
    for option, default in (
        ("--backbone <str>", "efficientnet-lite0"),
        ("--size <int>", "the size it was trained at"),
        ("--seed <int>", "0"),
        ("--copies / --no-copies", "yes"),
        ("--crop <float>", "1"),
        ("--finetune <head|tail|full|auto>", "head"),
    ):
        text = told[told.index(option) :]
        assert text[: text.index("]")].endswith(f"[default: {default}")


@pytest.mark.parametrize("program", [[sys.executable, "-m", "topwork"], ["topwork"]])
def test_both_ways_to_run_it(program: list[str], tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for arguments, code in ((["--version"], 0), (["train", str(tmp_path / "none"), "--out", "run"], 2)):
        ended = subprocess.run(
            [*program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path},
            cwd=tmp_path,
        )
        assert ended.returncode == code
        told = f"topwork {topwork.__version__}\n" if code == 0 else ""
        assert ended.stdout == told
        assert ended.stderr == (
            "" if code == 0 else f"topwork: no such file or folder: {tmp_path / 'none'}\n"
        )


def test_a_reader_that_goes_away_is_no_error_to_tell(run: Run, fresh: Path) -> None:
    with start("predict", run.path, fresh) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
