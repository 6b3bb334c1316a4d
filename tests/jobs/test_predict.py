from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path

import pytest

from photos import Topwork, finished, one_line, start, write_noise, write_shapes
from topwork.classifiers.classifier import Classifier
from topwork.errors import InputError, Stopped, TopworkError
from topwork.jobs.predict import predict_to_csv
from topwork.jobs.predictions_csv import TORN_BYTES, Plan, appending, side_of
from topwork.jobs.train import Run
from topwork.progress import Silent

PLAN = Plan(("image", "class", "error"), "c0ffee", 1, None)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in two folders, one that is none, and a text. Read only: copy it to change it."""
    root = tmp_path_factory.mktemp("bulk") / "noise"
    write_noise(root / "a", 150)
    write_noise(root / "b", 150)
    (root / "a" / "00070x.jpg").write_bytes(b"no picture")
    (root / "b" / "notes.txt").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def whole(run: Run, noise: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows of `noise`, made at once."""
    out = tmp_path_factory.mktemp("whole") / "out.csv"
    predict_to_csv(run.path, [str(noise)], out)
    return out.read_bytes()


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "few", 2, first=900)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def images(path: Path) -> list[str]:
    return [row["image"] for row in read(path)]


# the rows


def test_a_row_an_image_and_the_failed_ones_with_their_reason(
    run: Run, noise: Path, tmp_path: Path, call: Topwork
) -> None:
    out = tmp_path / "out.csv"
    code, told, err = call("predict", run.path, noise, "--csv", out)
    assert (code, err) == (0, "")
    assert told.startswith(
        f"{out} contains 302 images (2 can't be read; --retry-failed retries them); 302 new in "
    )
    assert told.endswith(" images/s\n")
    rows = read(out)
    assert list(rows[0]) == ["image", "class", "probability", "rejected", "error", "novelty"]
    assert [row["image"] for row in rows] == sorted(str(p) for p in noise.rglob("*.*"))
    failed = {Path(row["image"]).name: row["error"] for row in rows if row["error"]}
    assert set(failed) == {"00070x.jpg", "notes.txt"}
    assert failed["notes.txt"] == "not an image file (.txt)"
    expected = list(run.classifier.predict(str(noise)))
    at = {row["image"]: row for row in rows}
    for prediction in expected:
        row = at[prediction.image]
        if prediction.error is None:
            name, probability = prediction.top()[0]
            assert (row["class"], row["probability"]) == (name, f"{probability:.6f}")
            assert row["novelty"] == f"{prediction.novelty:.6f}"
            assert bool(row["rejected"]) == (float(row["novelty"]) > 1)
        else:
            assert (row["error"], row["class"], row["novelty"]) == (prediction.error, "", "")


def test_more_classes_and_sets(run: Run, few: Path, tmp_path: Path, call: Topwork) -> None:
    out = tmp_path / "out.csv"
    assert call("predict", run.path, few, "--csv", out, "--top", 2, "--coverage", 0.9)[0] == 0
    row = read(out)[0]
    assert list(row)[1:6] == ["class", "probability", "class_2", "probability_2", "set"]
    assert row["set"].split("|")[0] == row["class"]


def test_names_are_data_whatever_they_are(run: Run, tmp_path: Path, call: Topwork) -> None:
    folder = tmp_path / "photos"
    picture = (write_noise(tmp_path / "one", 1).examples[0].image).read()
    folder.mkdir()
    names = ["=1+1.png", "@cmd|' C calc'!A0.png", "a,b.png", 'a"b.png', "a\nb.png", "a\rb.png", "ä 猫.png"]
    for name in [*names, os.fsdecode(b"\xff.png")]:
        (folder / name).write_bytes(picture)
    out = tmp_path / "out.csv"
    expected = sorted([*(f"{folder}/{name}" for name in names), f"{folder}/\\xff.png"])
    assert call("predict", run.path, folder, "--csv", out)[0] == 0
    rows = read(out)
    assert sorted(row["image"] for row in rows) == expected
    assert {row["error"] for row in rows} == {""}
    before = out.read_bytes()
    assert call("predict", run.path, folder, "--csv", out)[1].endswith("already contains all 8 images\n")
    assert out.read_bytes() == before


def test_printed_rows_have_the_same_quotes(run: Run, tmp_path: Path, call: Topwork) -> None:
    name = tmp_path / "a\rb.png"
    name.write_bytes(write_noise(tmp_path / "one", 1).examples[0].image.read())
    assert f'\n"{name}",' in call("predict", run.path, name, "--csv")[1]


# on from where it was


def test_killed_at_any_moment_it_goes_on_and_no_image_is_missing_or_twice(
    run: Run, noise: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    # Slowed down, so that a kill meets it anywhere in its work; a row reaches the file at once.
    slow = (
        "import time\nfrom topwork.jobs import predictions_csv as rowfile\nrowfile.FLUSH_S = 0\n"
        "add = rowfile.Rows.add\n"
        "def slowly(*given, **named):\n    add(*given, **named)\n    time.sleep(0.01)\n"
        "rowfile.Rows.add = slowly"
    )
    choose, sizes = random.Random(0), []
    for _ in range(4):
        before = out.stat().st_size if out.exists() else 0
        with start("predict", run.path, noise, "--csv", out, before=slow) as process:
            until = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < until:
                if out.exists() and out.stat().st_size > max(before, 100):
                    break
                time.sleep(0.002)
            time.sleep(choose.random() * 0.2)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        sizes.append(out.stat().st_size)
        assert whole.startswith(out.read_bytes())
    assert sizes == sorted(set(sizes))  # each went on from the one before
    assert sizes[-1] < len(whole)
    assert finished(start("predict", run.path, noise, "--csv", out))[0] == 0
    assert out.read_bytes() == whole


def fill(out: Path) -> str:
    """Write three rows, those that are missing; what was said."""
    said: list[str] = []
    with appending(out, PLAN, say=said.append) as rows:
        for image in ("a\nb.jpg", 'c"d.jpg', "e.jpg"):
            if rows.done.add(image):
                rows.add([image, "cat", ""], failed=False)
    return "".join(said)


def test_a_torn_row_is_cut_off_and_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert fill(out) == ""
    lines = (b"image,class,error\n", b'"a\nb.jpg",cat,\n', b'"c""d.jpg",cat,\n', b"e.jpg,cat,\n")
    ends, whole = [0, *accumulate(map(len, lines))], b"".join(lines)
    assert out.read_bytes() == whole
    for size in range(len(whole) + 1):
        out.write_bytes(whole[:size])
        torn = size - max(end for end in ends if end <= size)
        told = f"{out}: its last row was torn ({torn} bytes): it is cut off, and predicted again"
        assert fill(out) == (told if torn and size > ends[1] else "")
        assert out.read_bytes() == whole
    for tail in (b'"a\n', b"\0" * 5000, b"\0" * 500 + b"\n", b"a,b\n", b"\xff,,\n", b'"a"b,,\n', b"\n"):
        out.write_bytes(whole + tail)
        assert f"torn ({len(tail):,} bytes)" in fill(out)
        assert out.read_bytes() == whole


def test_a_torn_row_is_told(run: Run, few: Path, tmp_path: Path, call: Topwork) -> None:
    out = tmp_path / "out.csv"
    call("predict", run.path, few, "--csv", out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-5])
    torn = len(whole.splitlines()[-1]) - 4
    code, _, err = call("predict", run.path, few, "--csv", out)
    assert (code, out.read_bytes()) == (0, whole)
    assert err == f"{out}: its last row was torn ({torn} bytes): it is cut off, and predicted again\n"


def test_a_file_that_was_changed_in_its_midst_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with appending(out, PLAN) as rows:
        for number in range(3):
            rows.add([f"{number}.jpg", "cat", ""], failed=False)
        rows.add(["x" * TORN_BYTES, "cat", ""], failed=False)
    content = out.read_bytes().replace(b"1.jpg,cat,", b"1.jpg,cat")
    out.write_bytes(content)
    message = (
        r"out.csv: expected the rows that were written; row 3 was changed since, with 4,194,\d{3} bytes from"
    )
    with pytest.raises(InputError, match=message), appending(out, PLAN):
        pass
    assert out.read_bytes() == content
    with appending(out, PLAN, overwrite=True) as rows:
        assert rows.rows == 0


def test_a_folder_that_has_grown(run: Run, few: Path, tmp_path: Path, call: Topwork) -> None:
    out = tmp_path / "out.csv"
    call("predict", run.path, few, "--csv", out)
    before = out.read_bytes()
    assert call("predict", run.path, few, "--csv", out) == (
        0,
        f"{out} already contains all 6 images\n",
        "",
    )
    assert out.read_bytes() == before
    write_shapes(few, 1, first=950)
    _, told, _ = call("predict", run.path, f"{few.parent}/./{few.name}/", "--csv", out, "--json")
    assert {**json.loads(told), "seconds": 0} == {
        "csv": str(out),
        "images": 9,
        "failed": 0,
        "new": 3,
        "seconds": 0,
    }
    assert out.read_bytes().startswith(before)
    assert sorted(map(Path, images(out))) == sorted(few.rglob("*.png"))


def test_what_failed_is_tried_again_when_asked(run: Run, few: Path, tmp_path: Path, call: Topwork) -> None:
    out, bad = tmp_path / "out.csv", few / "circle" / "899.png"
    picture = (few / "circle" / "900.png").read_bytes()
    bad.write_bytes(b"no picture")
    call("predict", run.path, few, "--csv", out)
    before = out.read_bytes()
    bad.write_bytes(picture)
    assert (
        "already contains all 7 images (1 can't be read; --retry"
        in call("predict", run.path, few, "--csv", out)[1]
    )
    assert out.read_bytes() == before
    code, told, err = call("predict", run.path, few, "--csv", out, "--retry-failed")
    assert (code, err) == (0, f"{out}: 1 failed before: they are tried again\n")
    assert f"{out} contains 7 images; 1 new in " in told
    assert sorted(images(out)) == sorted(map(str, few.rglob("*.png")))
    assert {row["error"] for row in read(out)} == {""}


def test_the_file_may_lie_among_the_images(run: Run, few: Path, call: Topwork) -> None:
    out = few / "out.csv"
    for _ in range(2):
        assert call("predict", run.path, few, "--csv", out)[0] == 0
        assert len(images(out)) == 6


# whose file it is


def test_another_classifier_or_other_options_are_refused(
    run: Run, shapes: Path, few: Path, tmp_path: Path, call: Topwork
) -> None:
    out, other = tmp_path / "out.csv", Path(shutil.copytree(run.path, tmp_path / "other"))
    description = other / "classifier.json"
    description.write_text(description.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    call("predict", run.path, few, "--csv", out)
    before = out.read_bytes()
    mend = "choose another --csv, or add --overwrite to begin it anew"
    one_line(
        call("predict", other, few, "--csv", out),
        f"{out}: was begun with another classifier than this run's; {mend}",
    )
    one_line(
        call("predict", run.path, few, "--csv", out, "--top", 2, "--coverage", 0.9),
        f"{out}: was begun with --top 1; got --top 2 --coverage 0.9; {mend}",
    )
    assert out.read_bytes() == before
    assert call("predict", other, few, "--csv", out, "--overwrite")[0] == 0
    assert out.read_bytes() == before  # made anew: the classifier's numbers are the same
    assert call("predict", other, few, "--csv", out)[1].endswith("already contains all 6 images\n")


@pytest.mark.parametrize("described", ["no", "of another", "damaged"])
def test_a_file_that_is_not_ours_is_never_touched(
    described: str, run: Run, few: Path, tmp_path: Path, call: Topwork
) -> None:
    out = tmp_path / "mine.csv"
    call("predict", run.path, few, "--csv", out)
    side = side_of(out)
    {"no": side.unlink, "of another": lambda: None, "damaged": lambda: side.write_text("{}")}[described]()
    if described == "of another":
        out.write_bytes(b"image,class\na.jpg,cat\n")
    before = out.read_bytes()
    for more in ((), ("--overwrite",), ("--retry-failed",)):
        one_line(
            call("predict", run.path, few, "--csv", out, *more),
            f"{out}: expected a new file, or one that `topwork predict --csv` began, with mine.csv.topwork.json "
            "beside it; it is another and stays as it is; choose another --csv (--csv - prints)",
        )
        assert out.read_bytes() == before


def test_a_picture_named_by_mistake_is_not_written_to(
    run: Run, few: Path, tmp_path: Path, call: Topwork
) -> None:
    picture = few / "circle" / "900.png"
    before, beside = picture.read_bytes(), sorted(picture.parent.iterdir())
    one_line(call("predict", run.path, "--csv", picture, few), "it is another and stays as it is")
    assert (picture.read_bytes(), sorted(picture.parent.iterdir())) == (before, beside)
    one_line(call("predict", run.path, few, "--csv", tmp_path), "expected a file for --csv; it is a folder")


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with appending(out, PLAN) as rows:
        rows.add(["1.jpg", "cat", ""], failed=False)
        message = r"out.csv: another process is writing to it; wait until that ends, or choose another --csv"
        with pytest.raises(InputError, match=message), appending(out, PLAN):
            pass
    with appending(out, PLAN) as rows:
        assert (rows.rows, "1.jpg" in rows.done) == (1, True)


def test_names_relative_to_another_folder_are_not_taken_for_these(
    run: Run, few: Path, tmp_path: Path, call: Topwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, elsewhere = tmp_path / "out.csv", tmp_path / "elsewhere"
    shutil.copytree(few, elsewhere / "few")
    monkeypatch.chdir(tmp_path)
    assert call("predict", run.path, "few", "--csv", out)[0] == 0
    assert images(out)[0] == "few/circle/900.png"
    monkeypatch.chdir(elsewhere)
    one_line(
        call("predict", run.path, "few", "--csv", out),
        f"few/circle/900.png: the paths in {out} are relative to {tmp_path}; run the command there, give whole paths",
    )
    assert call("predict", run.path, elsewhere / "few", "--csv", out)[0] == 0
    assert len(images(out)) == 12


# what goes wrong


def test_a_disk_that_is_full_in_mid_row(run: Run, noise: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    limit = len(whole) // 2
    full = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    code, told, err = finished(start("predict", run.path, noise, "--csv", out, before=full))
    assert (code, told) == (1, "")
    assert err == (
        f"topwork: {out}: can't be written (File too large); free some space or choose another --csv; the same "
        "command goes on from the last whole row\n"
    )
    assert whole.startswith(out.read_bytes())
    assert out.stat().st_size <= limit
    assert finished(start("predict", run.path, noise, "--csv", out))[0] == 0
    assert out.read_bytes() == whole


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = r"file/out.csv: can't be written \("
    with pytest.raises(TopworkError, match=message), appending(tmp_path / "file" / "out.csv", PLAN):
        pass


def test_stopped_it_says_how_to_go_on(run: Run, few: Path, tmp_path: Path) -> None:
    class Impatient(Silent):
        def bar(self, title: str, total: int) -> object:
            return self

        def __enter__(self) -> object:
            return self.advance

        def __exit__(self, *_: object) -> None:
            pass

        def advance(self, done: int, note: str | None = None) -> None:
            if images_there.pop() == "last":
                raise Stopped

    images_there = ["last", "second", "first"]
    out = tmp_path / "out.csv"
    with pytest.raises(Stopped) as told:
        predict_to_csv(run.path, [str(few)], out, watch=Impatient())
    assert str(told.value) == f"stopped; 3 images are in {out}: the same command goes on from there"
    assert len(images(out)) == 3
    assert predict_to_csv(run.path, [str(few)], out).new == 3


def test_stopped_at_the_command_line(
    run: Run, tmp_path: Path, call: Topwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(stream: object) -> None:
        raise Stopped

    monkeypatch.setattr("topwork.data.listing.names_in", stop)
    out = tmp_path / "out.csv"
    told = f"topwork: stopped; 0 images are in {out}: the same command goes on from there\n"
    assert call("predict", run.path, "-", "--csv", out) == (130, "", told)
    told = "topwork: stopped; the same command starts over; with --csv FILE it would resume\n"
    assert call("predict", run.path, "-", "--json") == (130, "", told)


def test_strict_stops_and_keeps_what_was_before(run: Run, few: Path, tmp_path: Path, call: Topwork) -> None:
    out, bad = tmp_path / "out.csv", few / "square" / "900.png"
    bad.write_bytes(b"no picture")
    (few / "notes.txt").write_bytes(b"")  # no image: no reason to stop
    for more in (("--csv", out), ("--json",), ("--csv", out)):
        one = call("predict", run.path, few, "--strict", *more)
        one_line(one, f"{bad}: not a JPEG, PNG, WebP, BMP, GIF or TIFF image")
        assert one[2].endswith("; mend or remove it, or run without --strict\n")
    assert len(images(out)) == 3
    one_line(
        call("predict", run.path, tmp_path / "gone.png", "--strict", "--json"), "gone.png: no such file; mend"
    )


def test_nothing_readable_is_no_success(run: Run, tmp_path: Path, call: Topwork) -> None:
    out = tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    assert call("predict", run.path, tmp_path / "empty", "--csv", out)[0] == 1
    assert [row["error"] for row in read(out)] == ["no images in this folder"]


def test_options_for_a_file_need_one(run: Run, few: Path, call: Topwork) -> None:
    for option in ("--overwrite", "--retry-failed"):
        one_line(call("predict", run.path, few, option), f"{option} needs a file: add --csv FILE")


# what is read


def test_csv_without_a_name_prints(run: Run, few: Path, call: Topwork) -> None:
    printed = call("predict", run.path, few, "--csv", "-")
    assert printed[0] == 0
    assert printed[1].startswith("image,class,probability,rejected,error\n")
    for arguments in ((few, "--csv"), ("--csv", "--top", 1, few), ("--csv=-", few), ("--csv", "--", few)):
        assert call("predict", run.path, *arguments) == printed


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_paths_from_standard_input(separator: bytes, run: Run, tmp_path: Path) -> None:
    pictures = write_noise(tmp_path / "in", 3)
    odd = tmp_path / "in" / os.fsdecode(b"\xff\n.png" if separator == b"\0" else b"\xff.png")
    odd.write_bytes(pictures.examples[0].image.read())
    given = [os.fsencode(path) for path in sorted((tmp_path / "in").iterdir())]
    out = tmp_path / "out.csv"
    for new in (4, 0) if separator == b"\0" else (4,):
        process = subprocess.run(
            [sys.executable, "-m", "topwork", "predict", run.path, "-", "--csv", out, "--json"],
            input=separator.join([*given, given[0], b""]),
            capture_output=True,
            check=True,
        )
        assert (json.loads(process.stdout)["new"], process.stderr) == (new, b"")
    text = str(odd).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    assert sorted(images(out)) == sorted([*(str(e.image) for e in pictures), text])


def test_from_python(run: Run, noise: Path) -> None:
    import topwork

    found = topwork.predict(run.path, str(noise))
    again = list(Classifier.load(run.path).predict(str(noise)))
    assert [p.image for p in found] == [p.image for p in again]
    assert all(p.top(1) == q.top(1) for p, q in zip(found, again, strict=True))
    with pytest.raises(InputError, match="expected a folder that `topwork train` wrote"):
        topwork.predict(noise, str(noise))
