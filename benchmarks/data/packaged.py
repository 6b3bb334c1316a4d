"""Small datasets as folders of pictures, made from what packages ship, to judge advice by.

    python -m benchmarks.data.packaged [--work benchmarks/work] [--pictures 1500] [NAME ...]

They need `pip install elpv-dataset scikit-learn scikit-image matplotlib` and, for the emoji, `npm` (the pictures of
four vendors are fetched once and kept). Each dataset is a folder of PNG files and, beside it, a manifest
`NAME.csv` (of another number of pictures: `NAME-NUMBER.csv`) with the columns path, label, split, group: at most
1,500 pictures, a quarter of them for testing, chosen by a seed. What belongs together (one emoji by four vendors,
all letters of a font) is one group, on one side.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.options import WORK, shared_options
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.data.split import split

Item = TypeVar("Item")
LIMIT = 1500  # pictures of a set, where no other number is asked for
SEED = 0
TEST = 0.25
VENDORS = ("apple", "facebook", "google", "twitter")
EMOJI_VERSION = "16.0.0"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PATCH_PX = 16
FLAT = 2.0  # a patch whose grey levels deviate less than this is drawn again
TEXTURES = ("brick", "grass", "gravel", "moon", "coins", "cell", "ihc", "retina", "hubble_deep_field", "text")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, its class, what it belongs together with, and its part where the dataset says so."""

    image: Image.Image
    label: str
    group: str | None = None
    split: str | None = None


def cells(*, kinds: tuple[str, ...], by_kind: bool = False) -> Iterator[Picture]:
    """Solar cells (see benchmarks/data/elpv.py), functional or defective; or, `by_kind`, of which type of module."""
    root = _package("elpv_dataset") / "data"
    for line in _shuffled((root / "labels.csv").read_text(encoding="utf-8").splitlines()):
        if not line.strip():
            continue
        name, probability, kind = line.split()
        if kind in kinds:
            label = kind if by_kind else "defective" if float(probability) > 0 else "functional"
            yield Picture(Image.open(root / name).convert("L"), label)


def digits(work: Path, limit: int) -> Iterator[Picture]:
    """Handwritten digits of 8 x 8 pixels, as scikit-learn ships them, made larger."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for row in _shuffled(range(len(bunch.images))):
        pixels = np.uint8(255 - np.round(bunch.images[row] * 255 / 16))
        yield Picture(
            Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC), f"{bunch.target[row]}"
        )


def faces(work: Path, limit: int) -> Iterator[Picture]:
    """Faces and other pieces of photographs, 25 x 25 pixels, as scikit-image ships them: 100 of each."""
    images = np.load(_package("skimage") / "data" / "lfw_subset.npy", allow_pickle=False)
    for row in _shuffled(range(len(images))):
        pixels = np.uint8(np.round(255 * images[row]))
        image = Image.fromarray(pixels).resize((100, 100), Image.Resampling.BICUBIC)
        yield Picture(image, "face" if row < 100 else "other")


def emoji_categories(work: Path, limit: int) -> Iterator[Picture]:
    """Emoji by category (animals, food, flags, …), as four vendors draw them."""
    yield from _emoji(work, limit, lambda entry, vendor: entry["category"], leave_out=("Component",))


def emoji_animals(work: Path, limit: int) -> Iterator[Picture]:
    """Emoji of animals and plants by their kind (mammals, birds, insects, …)."""
    wanted = lambda entry, vendor: entry["subcategory"] if entry["category"] == "Animals & Nature" else None  # noqa: E731
    yield from _emoji(work, limit, wanted, leave_out=("animal-amphibian",))


def emoji_vendors(work: Path, limit: int) -> Iterator[Picture]:
    """Emoji by the vendor that drew them."""
    yield from _emoji(work, limit, lambda entry, vendor: vendor)


def letters(work: Path, limit: int) -> Iterator[Picture]:
    """Capital letters, slightly turned, in grey tones; a font is a group, so that the test has fonts not seen."""
    files = _fonts()
    often = max(3, -(-limit // (len(files) * len(LETTERS))))
    for font, letter, number in _shuffled((f, c, n) for f in files for c in LETTERS for n in range(often)):
        yield Picture(_draw(font, letter, number), letter, font.stem)


def fonts(work: Path, limit: int) -> Iterator[Picture]:
    """Letters of both cases by the family of their font; a letter is a group."""
    every, files = LETTERS + LETTERS.lower(), _fonts()
    often = max(2, -(-limit // (len(files) * len(every))))
    for font, letter, number in _shuffled((f, c, n) for f in files for c in every for n in range(often)):
        family = next(
            name for name in ("DejaVuSansMono", "DejaVuSans", "DejaVuSerif", "STIX") if name in font.stem
        )
        yield Picture(_draw(font, letter, number), family, letter)


def textures(work: Path, limit: int) -> Iterator[Picture]:
    """Tiny grey patches by the photograph that they are cut from; test patches come from its right quarter."""
    draw = random.Random(SEED)
    for name in TEXTURES:
        path = next((_package("skimage") / "data").glob(f"{name}.*"))
        image = Image.open(path).convert("L")
        border = image.width * 3 // 4
        for number in range(limit // len(TEXTURES)):
            test = number % 4 == 0
            left, right = (border, image.width) if test else (0, border)
            pixels = np.zeros(1)
            while pixels.std() < FLAT:  # the black around a picture tells nothing
                x, y = draw.randint(left, right - PATCH_PX), draw.randint(0, image.height - PATCH_PX)
                pixels = np.asarray(image.crop((x, y, x + PATCH_PX, y + PATCH_PX)), np.float64)
            # The same brightness and contrast for all, so that the texture has to tell.
            pixels = (pixels - pixels.mean()) * (40 / pixels.std()) + 128
            patch = Image.fromarray(np.uint8(pixels.round().clip(0, 255)))
            resized = patch.resize((96, 96), Image.Resampling.BICUBIC)
            yield Picture(resized, name, None, "test" if test else "train")


DATASETS: dict[str, Callable[[Path, int], Iterator[Picture]]] = {
    "elpv-mono": lambda work, limit: cells(kinds=("mono",)),
    "elpv-poly": lambda work, limit: cells(kinds=("poly",)),
    "elpv": lambda work, limit: cells(kinds=("mono", "poly")),
    "elpv-kinds": lambda work, limit: cells(kinds=("mono", "poly"), by_kind=True),
    "digits": digits,
    "faces": faces,
    "emoji-categories": emoji_categories,
    "emoji-animals": emoji_animals,
    "emoji-vendors": emoji_vendors,
    "letters": letters,
    "fonts": fonts,
    "textures": textures,
}


def named(name: str, limit: int) -> str:
    """What a set of so many pictures is called."""
    return name if limit == LIMIT else f"{name}-{limit}"


def write_dataset(name: str, work: Path, limit: int = LIMIT) -> Path:
    """Write a dataset's folder and manifest below `work`/advice, if they are not there; the manifest's path."""
    name, maker = named(name, limit), DATASETS[name]
    folder = work / "advice" / name
    manifest = folder.with_suffix(".csv")
    if manifest.exists():
        return manifest
    shutil.rmtree(folder, ignore_errors=True)
    rows: list[tuple[str, str, str | None, str | None]] = []
    for number, picture in enumerate(maker(work, limit)):
        if number == limit:
            break
        path = folder / picture.label.replace(" & ", "-and-") / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.image.save(path)
        rows.append((f"{name}/{path.parent.name}/{path.name}", picture.label, picture.split, picture.group))
    partial = manifest.with_suffix(".partial")  # renamed when whole: a break leaves no half manifest
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        for (path, label, _, group), part in zip(rows, _parts(rows), strict=True):
            writer.writerow((path, label, part, group or ""))
    partial.rename(manifest)
    return manifest


def contact_sheet(manifest: Path, *, columns: int = 8, side_px: int = 72) -> Image.Image:
    """The first pictures of each class, a row each."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    sheet = Image.new("RGB", (columns * side_px, len(labels) * side_px), "white")
    for y, label in enumerate(labels):
        shown = [row for row in rows if row["label"] == label][:columns]
        for x, row in enumerate(shown):
            image = (
                Image.open(manifest.parent / row["path"]).convert("RGBA").resize((side_px - 4, side_px - 4))
            )
            sheet.paste(image, (x * side_px, y * side_px), image)
    return sheet


def _parts(rows: list[tuple[str, str, str | None, str | None]]) -> list[str]:
    if all(part for _, _, part, _ in rows):
        return [part or "" for _, _, part, _ in rows]
    examples = tuple(Example(p, FileImage(p), label, group) for p, label, _, group in rows)
    dataset = Dataset(examples, tuple(sorted({label for _, label, _, _ in rows})), "made")
    test = {example.id for example in split(dataset, test=TEST, seed=SEED).test}
    return ["test" if path in test else "train" for path, _, _, _ in rows]


def _emoji(
    work: Path,
    limit: int,
    label_of: Callable[[dict[str, str], str], str | None],
    *,
    leave_out: tuple[str, ...] = (),
) -> Iterator[Picture]:
    archives = {vendor: _fetch_emoji(work, vendor) for vendor in VENDORS}
    with tarfile.open(archives["apple"]) as archive:
        entries = json.loads(_read(archive, "package/emoji.json"))
    everywhere = [e for e in entries if all(e[f"has_img_{vendor}"] for vendor in VENDORS)]
    wanted = [
        (entry["unified"], entry["image"], vendor, label)
        for entry in _shuffled(everywhere)
        for vendor in VENDORS
        if (label := label_of(entry, vendor)) is not None and label not in leave_out
    ][:limit]
    pictures: dict[tuple[str, str], bytes] = {}
    for vendor in VENDORS:  # an archive is read once, in its own order
        names = {f"package/img/{vendor}/64/{image}": image for _, image, of, _ in wanted if of == vendor}
        with tarfile.open(archives[vendor]) as archive:
            for member in archive:
                if member.name in names and (file := archive.extractfile(member)):
                    pictures[vendor, names[member.name]] = file.read()
    for unified, image, vendor, label in wanted:
        yield Picture(Image.open(io.BytesIO(pictures[vendor, image])).convert("RGBA"), label, unified)


def _fetch_emoji(work: Path, vendor: str) -> Path:
    folder = work / "npm"
    path = folder / f"emoji-datasource-{vendor}-{EMOJI_VERSION}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        package = f"emoji-datasource-{vendor}@{EMOJI_VERSION}"
        subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    return path


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _fonts() -> list[Path]:
    folder = _package("matplotlib") / "mpl-data" / "fonts" / "ttf"
    return sorted(
        p
        for p in folder.glob("*.ttf")
        if p.stem.startswith(("DejaVu", "STIXGeneral")) and "Display" not in p.stem
    )


def _draw(font: Path, letter: str, number: int) -> Image.Image:
    """A letter in the middle of 64 x 64 pixels; size, tones and turn are drawn by the font, letter and number."""
    draw = random.Random(f"{font.stem} {letter} {number}")
    ground, ink = sorted((draw.randint(0, 110), draw.randint(145, 255)), reverse=draw.random() < 0.5)
    image = Image.new("L", (64, 64), ground)
    face = ImageFont.truetype(str(font), draw.randint(28, 44))
    ImageDraw.Draw(image).text((32, 32), letter, fill=ink, font=face, anchor="mm")
    return image.rotate(draw.uniform(-12, 12), Image.Resampling.BICUBIC, fillcolor=ground)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed: see the top of benchmarks/data/packaged.py")
    return Path(spec.origin).parent


def _shuffled(items: Iterable[Item]) -> list[Item]:
    shuffled = list(items)
    random.Random(SEED).shuffle(shuffled)
    return shuffled


def main() -> None:
    parser = shared_options(__doc__, work=WORK, pictures=LIMIT)
    parser.add_argument(
        "names", nargs="*", default=list(DATASETS), help=f"of {', '.join(DATASETS)}; by default all"
    )
    options = parser.parse_args()
    for name in options.names:
        manifest = write_dataset(name, options.work, options.pictures)
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        parts = {part: sum(row["split"] == part for row in rows) for part in ("train", "test")}
        print(f"{manifest}: {len({row['label'] for row in rows})} classes, {parts}")


if __name__ == "__main__":
    main()
