"""Small labelled pictures on disk, and runs of the program on them, for the tests of everything above images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from topwork.data.dataset import Dataset, Example, FileImage
from topwork.progress import Silent

SIZE_PX = 32  # the smallest input of a backbone, and so the quickest
SHAPES = ("circle", "square", "stripes")
Told = tuple[int, str, str]  # what the program gives: exit code, standard output, standard error
Topwork = Callable[..., Told]  # the command line, called with its arguments


def shape(label: str, number: int, size_px: int = 48) -> Image.Image:
    """A picture of one of `SHAPES`, its place, colours and noise given by `number`."""
    random = np.random.default_rng([SHAPES.index(label), number])
    ground, ink = (tuple(int(v) for v in random.integers(low, low + 100, 3)) for low in (0, 150))
    image = Image.new("RGB", (size_px, size_px), ground)
    draw = ImageDraw.Draw(image)
    side = int(random.integers(size_px // 3, size_px // 2))
    x, y = (int(v) for v in random.integers(2, size_px - side - 2, 2))
    if label == "circle":
        draw.ellipse((x, y, x + side, y + side), fill=ink)
    elif label == "square":
        draw.rectangle((x, y, x + side, y + side), fill=ink)
    else:
        for at in range(x % 8, size_px, 8):
            draw.line((at, 0, at, size_px), fill=ink, width=3)
    noise = random.integers(-12, 13, (size_px, size_px, 3))
    return Image.fromarray((np.asarray(image, np.int64) + noise).clip(0, 255).astype(np.uint8))


class Listener(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def write_shapes(root: Path, count: int, *, first: int = 0, labels: Sequence[str] = SHAPES) -> Path:
    """`count` pictures of each class below `root`, one folder a class: PNG, so that their bytes are exact."""
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            shape(label, number).save(root / label / f"{number:03}.png")
    return root


def write_noise(root: Path, count: int) -> Dataset:
    """`count` different tiny pictures without labels, quick to make and to decode."""
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / f"{number:05}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)
    return Dataset(tuple(Example(p.name, FileImage(str(p))) for p in paths), (), str(root))


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python on `code` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(*arguments: object, before: str = "") -> subprocess.Popen[str]:
    """Start `topwork ARGUMENTS` in a process of its own; `before` is Python that runs first."""
    return start_python(f"{before}\nfrom topwork.cli.main import main\nmain()", *arguments)


def finished(process: subprocess.Popen[str]) -> Told:
    """Wait for it: its exit code, standard output and standard error."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def one_line(told: Told, text: str) -> None:
    """Check that the user's input was refused in one line that holds `text`."""
    code, out, err = told
    assert (code, out) == (2, "")
    assert err.startswith("topwork: ")
    assert err.count("\n") == 1
    assert text in err
