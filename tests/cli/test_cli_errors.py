"""What the command line says of input that is wrong: one line on standard error, nothing else, exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from photos import SIZE_PX, Topwork, finished, one_line, start
from topwork.jobs.train import Run

QUICK = ("--size", SIZE_PX, "--precision", "f32")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ("--backbone", "eficientnet-lite0"),
            "unknown backbone 'eficientnet-lite0'; did you mean 'efficientnet-l",
        ),
        (("--size", 8), "the input size must be 32 to 1024 px; got 8"),
        (("--folds", 1), "split.folds must be 2 or more; got 1"),
        (("--test", 1.5), "`test` must be a fraction from 0 to below 1; got 1.5"),
        (("--test", -0.1), "`test` must be a fraction from 0 to below 1; got -0.1"),
        (("--test", "nan"), "`test` must be a fraction from 0 to below 1; got nan"),
        (("--test", 0.6, "--validation", 0.6), "must sum to less than 1"),
        (("--recipe", "none.toml"), "none.toml: expected a recipe (TOML); No such file or directory"),
    ],
)
def test_a_setting_that_is_wrong(
    call: Topwork, shapes: Path, tmp_path: Path, options: tuple[object, ...], text: str
) -> None:
    one_line(call("train", shapes, "--out", tmp_path / "run", *options), text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (("--size", "big"), ("'--size'", "valid integer")),
        (("--test", "some"), ("'--test'", "valid")),
        (("--head", "liner"), ("'--head'", "linear", "mlp", "centroid")),
        (("--fit", "strech"), ("'--fit'", "stretch", "crop")),
        (("--hed", "mlp"), ("--hed", "--head")),
    ],
)
def test_an_option_that_cannot_be_parsed(
    call: Topwork, shapes: Path, tmp_path: Path, options: tuple[object, ...], texts: tuple[str, ...]
) -> None:
    told = call("train", shapes, "--out", tmp_path / "run", *options)
    for text in (*texts, "all options: "):
        one_line(told, text)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--minutes", 5), "--minutes"),
        (("--crop", 0.7, "--finetune", "head"), "--crop"),
        (("--colour", 0.1, "--no-turns", "--flips", "both"), "--flips, --turns, --colour"),
    ],
)
def test_an_option_for_tuning_where_nothing_is_tuned(
    call: Topwork, shapes: Path, tmp_path: Path, options: tuple[object, ...], names: str
) -> None:
    told = call("train", shapes, "--out", tmp_path / "run", *QUICK, *options)
    mend = "add --finetune tail, full or auto, or omit " + ("them" if "," in names else "it")
    one_line(told, f"topwork: {names}: only used with fine-tuning, which is off; {mend}\n")


def test_a_recipe_that_tunes_takes_options_for_tuning(call: Topwork, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[finetune]\nmode = 'tail'", encoding="utf-8")
    options = ("--recipe", tmp_path / "recipe.toml", "--minutes", 0)
    one_line(
        call("train", shapes, "--out", tmp_path / "run", *options),
        "finetune.minutes must be 0.01 to 100000; got 0",
    )


def test_a_command_that_there_is_not(call: Topwork) -> None:
    one_line(call("trian"), "no such command 'trian'")
    one_line(call("predict"), "missing argument 'run'")
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "Usage: " in err
    assert "advise" in err


def test_data_that_is_wrong(call: Topwork, shapes: Path, run: Run, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run", *QUICK)
    typing_error = shapes.parent / "shpaes"
    one_line(
        call("train", typing_error, *out), f"no such file or folder: {typing_error}; did you mean {shapes}?"
    )
    (tmp_path / "one").mkdir()
    shutil.copytree(shapes / "circle", tmp_path / "one" / "circle")
    one_line(call("train", tmp_path / "one", *out), "expected at least two classes in")
    one_line(call("train", shapes / "circle", *out), "got 20 images and no sub-folders")
    one_line(call("evaluate", run.path, tmp_path / "none"), "no such file or folder")
    one_line(call("evaluate", tmp_path, shapes), "expected a folder that `topwork train` wrote; it has no")
    one_line(
        call("predict", tmp_path / "none", shapes), "expected a folder that `topwork train` wrote; it has no"
    )


def test_a_run_that_is_there_is_not_written_over(
    call: Topwork, run: Run, shapes: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(run.path, tmp_path / "run"))
    told = call("train", shapes, "--out", out, *QUICK)
    one_line(told, "already contains a run; choose another --out, or add --overwrite to replace it")
    code, text, _ = call("train", shapes, "--out", out, *QUICK, "--overwrite", "--head", "centroid", "--json")
    assert (code, json.loads(text)["head"]["kind"]) == (0, "centroid")


def test_strict_stops_at_an_image_that_cannot_be_read(
    call: Topwork, run: Run, fresh: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(fresh, tmp_path / "photos"))
    (photos / "square" / "bad.png").write_bytes(b"no picture")
    for command in (("train", photos, "--out", tmp_path / "run", *QUICK), ("evaluate", run.path, photos)):
        one_line(call(*command, "--strict"), "square/bad.png: ")
        told = call(*command, "--strict")
        assert told[2].endswith("mend or remove it, or run without --strict\n")


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    for arguments in (("--debug", "train", tmp_path / "none"), ("train", tmp_path / "none", "--debug")):
        code, out, err = finished(start(*arguments, "--out", tmp_path / "run"))
        assert (code, out) == (1, "")
        assert "Traceback (most recent call last)" in err
        assert f"InputError: no such file or folder: {tmp_path / 'none'}" in err
