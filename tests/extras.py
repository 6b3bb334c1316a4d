"""Each extra installed alone, in an environment of its own, and in it what the docs say it is for: `make extras`.

    python tests/extras.py [NAME ...] [--keep .venv-extras]

`core` is the package without an extra: there, what needs one must say so in one line, with the extra's name. A row
is printed for each command; the exit code is 1 if one of them isn't as expected. Environments are kept and used
again while pyproject.toml stays as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ("--size", "64")
PHOTOS = """
import sys; from pathlib import Path
import numpy as np; from PIL import Image, ImageDraw
root, count = Path(sys.argv[1]), int(sys.argv[2])
for k, label in enumerate(("circle", "square", "stripes")):
    (root / label).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        r = np.random.default_rng([k, n])
        ground, ink = (tuple(map(int, r.integers(a, a + 100, 3))) for a in (0, 150))
        image = Image.new("RGB", (64, 64), ground); draw = ImageDraw.Draw(image)
        x, y, s = (int(v) for v in r.integers(4, 24, 3)); box = (x, y, x + s + 16, y + s + 16)
        if label == "circle": draw.ellipse(box, fill=ink)
        elif label == "square": draw.rectangle(box, fill=ink)
        else: [draw.line((at, 0, at, 64), fill=ink, width=3) for at in range(x % 8, 64, 8)]
        image.save(root / label / f"{n:03}.png")
"""
PARQUET = """
import sys; from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
paths = sorted(Path("photos").rglob("*.png"))
pq.write_table(pa.table({"path": map(str, paths), "label": [p.parent.name for p in paths]}), "photos.parquet")
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A command, run in a folder that has `photos` and `run`; `says`: what its output must hold; `code`: its exit."""

    command: tuple[str, ...]
    says: str = ""
    code: int = 0

    def __str__(self) -> str:
        return " ".join(part if "\n" not in part else "…" for part in self.command)


def ok(*command: str, says: str = "") -> Step:
    return Step(command, says)


def lacks(extra: str, *command: str) -> Step:
    """What needs `extra` says so in one line."""
    return Step(command, f'pip install "topwork[{extra}]"', 2)


def export(kind: str, path: str, example: str) -> tuple[Step, Step]:
    shape = "sized" if kind == "keras" or kind == "litert" else "any"
    return (
        ok("topwork", "export", "run", "--format", kind, "--out", path, "--input", shape),
        ok("python", str(ROOT / "examples" / example), path + _ending(kind), "photos/circle/000.png"),
    )


def _ending(kind: str) -> str:
    return {"onnx": ".onnx", "litert": ".tflite", "keras": ".keras"}.get(kind, "")


TFDS = (str(ROOT / "examples/folder_as_tfds.py"), "photos", "shapes_here", "data")
TEXTBOOK = (
    str(ROOT / "examples/textbook.py"),
    "--dataset",
    "shapes_here",
    "--data-dir",
    "data",
    "--module",
    "module",
)
TEXTBOOK += ("--size", "64", "--features", "1280", "--epochs", "1")
PUBLISH = ok("topwork", "modules", "publish", "efficientnet-lite0", "--out", "module", "--size", "64")
STEPS: dict[str, tuple[Step, ...]] = {
    "core": (
        ok("topwork", "--version", says="topwork 0."),
        ok("topwork", "evaluate", "run", "photos", says="accuracy"),
        ok("topwork", "predict", "run", "photos/circle", "--top", "2", says="circle"),
        ok("topwork", "predict", "run", "photos", "--csv", "out.csv", says="60 images"),
        ok("topwork", "audit", "photos", "--out", "audit", *SMALL),
        ok("topwork", "advise", "photos", *SMALL),
        ok("topwork", "report", "run"),
        ok("topwork", "diff", "run", "run"),
        ok("topwork", "modules", "list"),
        ok("topwork", "modules", "info", "efficientnet-lite0"),
        ok("topwork", "cache", "info"),
        *export("openvino", "exported", "load_openvino.py"),
        ok("python", "-c", "import topwork; print(topwork.Classifier.load('run').classes)", says="circle"),
        lacks("finetune", "topwork", "finetune", "run"),
        lacks("finetune", "topwork", "train", "photos", "--out", "other", "--finetune", "tail"),
        lacks("export", "topwork", "export", "run", "--format", "onnx", "--out", "x"),
        lacks("tfhub", "topwork", "export", "run", "--format", "tfhub", "--out", "x"),
        lacks("serve", "topwork", "serve", "run"),
        lacks("parquet", "topwork", "train", "photos.parquet", "--out", "other"),
        lacks("tfds", "topwork", "train", "tfds:beans", "--out", "other"),
        lacks("hf", "topwork", "train", "hf:beans", "--out", "other"),
        lacks("hf", "topwork", "modules", "info", "hf:owner/repo/model.onnx"),
        lacks("kaggle", "topwork", "modules", "info", "kaggle:owner/model/tensorFlow2/variation/1"),
        lacks("tfhub", "topwork", "modules", "info", "keras:MobileNet"),
        lacks("kerashub", "topwork", "modules", "info", "kerashub:resnet_18_imagenet"),
        lacks(
            "backbones", "topwork", "train", "photos", "--out", "other", "--backbone", "efficientnet-lite1"
        ),
        lacks("demo", "topwork", "demo", "--out", "demo"),
    ),
    "backbones": (
        ok("topwork", "train", "photos", "--out", "lite1", "--backbone", "efficientnet-lite1", *SMALL),
        ok("topwork", "train", "photos", "--out", "lite2", "--backbone", "efficientnet-lite2", *SMALL),
    ),
    "parquet": (
        ok("python", "-c", PARQUET),
        ok("topwork", "train", "photos.parquet", "--out", "from-parquet", *SMALL, says="accuracy"),
    ),
    "demo": (ok("topwork", "demo", "--out", "demo", says="accuracy"),),
    "serve": (ok("serve"),),
    "finetune": (ok("topwork", "finetune", "run", "--minutes", "0.1"),),
    "tfhub": (
        PUBLISH,
        ok("topwork", "train", "photos", "--out", "published", "--backbone", "module", says="accuracy"),
        ok("topwork", "export", "run", "--format", "tfhub", "--out", "exported-module"),
        ok("python", "-W", "ignore", "-c", "import topwork.tfhub as hub; hub.KerasLayer('module')"),
    ),
    "tfds": (
        PUBLISH,
        ok("python", *TFDS),
        ok("python", *TEXTBOOK, says="test loss"),
        ok("python", *TEXTBOOK, "--trainable", says="test loss"),
        ok(
            *("python", str(ROOT / "examples/textbook_topwork.py"), "tfds:data/shapes_here/1.0.0", "module"),
            *("textbook-run",),
            says="test loss",
        ),
    ),
    "export": (
        *export("onnx", "flowers", "load_onnx.py"),
        *export("savedmodel", "saved", "load_savedmodel.py"),
        *export("litert", "lite", "load_litert.py"),
        *export("keras", "kept", "load_keras.py"),
        ok("topwork", "train", "photos", "--out", "plain", "--features", "last", *SMALL),
        ok("topwork", "export", "plain", "--format", "openvino", "--precision", "fp16", "--out", "small"),
    ),
    "hf": (ok("python", "-c", "import datasets, huggingface_hub"),),
    "kaggle": (ok("python", "-c", "import kagglehub"),),
    "kerashub": (ok("python", "-W", "ignore", "-c", "import keras_hub, safetensors"),),
}


def environment(name: str, keep: Path) -> Path:
    """The folder of the programs of an environment with this extra alone, made if it is not there as it should be."""
    folder = keep / name
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    mark = folder / "made-from"
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        what = str(ROOT) if name == "core" else f"{ROOT}[{name}]"
        subprocess.run(
            [folder / "bin/python", "-m", "pip", "install", "--quiet", "--editable", what], check=True
        )
        mark.write_text(wanted)
    return folder / "bin"


def served(bin: Path, place: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Start `topwork serve`, ask for its page and its models, and end it as a service manager would."""
    with subprocess.Popen(
        [bin / "topwork", "serve", "run", "--port", "0"],
        cwd=place, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        said = ""
        for line in process.stdout or ():
            said += line
            if (at := line.find("http://")) >= 0:
                address = line[at:].split()[0].rstrip("/.,;")
                with urllib.request.urlopen(address + "/") as page:
                    said += page.read().decode()[:200]
                process.terminate()
        return process.wait(), said


def run_step(step: Step, bin: Path, place: Path, variables: dict[str, str]) -> tuple[int, str]:
    if step.command == ("serve",):
        return served(bin, place, variables)
    program, *rest = step.command
    done = subprocess.run(
        [bin / program, *rest], cwd=place, env=variables, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def check(name: str, keep: Path, tell: Callable[[str], None]) -> int:
    """Run an extra's steps; how many were not as expected."""
    bin, wrong = environment(name, keep), 0
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        variables = {**os.environ, "TOPWORK_CACHE": str(place / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        variables |= {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([bin / "python", "-c", PHOTOS, place / "photos", "20"], check=True)
        (place / "photos.parquet").write_bytes(b"PAR1PAR1")
        first = ok("topwork", "train", "photos", "--out", "run", *SMALL, says="accuracy")
        for step in (first, *STEPS[name]):
            began = time.monotonic()
            code, said = run_step(step, bin, place, variables)
            good = code == step.code and step.says in said and "Traceback" not in said
            if step.code:
                good = good and len(said.strip().splitlines()) == 1
            wrong += not good
            tell(f"{'ok  ' if good else 'FAIL'} {name:10} {time.monotonic() - began:6.1f} s  {step}")
            if not good:
                tell(f"     exit code {code}, expected {step.code} and {step.says!r}:\n{said[-2000:]}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STEPS)}; all without")
    parser.add_argument("--keep", type=Path, default=ROOT / ".venv-extras")
    options = parser.parse_args()
    if unknown := set(options.names) - set(STEPS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(STEPS)}")
    names = options.names or list(STEPS)
    wrong = sum(check(name, options.keep, lambda text: print(text, flush=True)) for name in names)
    print(f"{wrong} not as expected" if wrong else f"all as expected: {', '.join(names)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
