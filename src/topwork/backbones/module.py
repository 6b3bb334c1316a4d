"""A module by its handle: fetched, read, dressed for pictures and cut to its trunk; and all that is known of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from topwork.backbones import efficientnet_lite as builtin
from topwork.backbones.conversion.kept import Converted, converted
from topwork.backbones.hub.catalog import look_up
from topwork.backbones.hub.handle import SUFFIXES, USUAL, Handle, parse
from topwork.backbones.hub.resolve import Progress, Say, resolve
from topwork.errors import InputError, one_of
from topwork.graphs import trunk
from topwork.graphs.pixels import Pixels, find_range, pixels
from topwork.graphs.read import ImageInput, UnreadableError, dress, find_image_input, read_graph
from topwork.images.framing import Framing
from topwork.recipe import PixelChoice, PixelRange, Pool

if TYPE_CHECKING:
    import openvino as ov

    from topwork.backbones.preprocessing import Preprocessing

UNSTATED = "see its source"
USUAL_PX = 224  # where neither the module nor the catalog says
SMALLEST_PX, LARGEST_PX = 32, 1024
# What networks that don't show their range mostly want, by the format they come in.
CUSTOM: dict[str, PixelRange] = {
    "": "0..1",
    ".onnx": "imagenet",
    ".xml": "imagenet",
    ".tflite": "-1..1",
    ".keras": "0..255",
}


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """`graph`: `image` uint8 (1, S, S, 3) RGB → its `stages` (1, C[, H, W]) and `last`, (1, D[, H, W]).

    `signed`: stages may be negative; else they are at least 0. `rectified`: `last` is at least 0. `size_fixed`: it
    takes pictures of this size only. `framing`: how its source makes pictures square, if it says. `notes`: what a
    person who uses it should know, each a sentence; `assumed`: those of them that tell of what nothing states.
    """

    handle: str
    graph: ov.Model
    stages: tuple[str, ...]
    rectified: bool
    size_px: int
    size_fixed: bool
    pixels: Pixels
    license: str
    source: str
    notes: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    signed: bool = False
    framing: Framing | None = None


def load_module(
    handle: str,
    *,
    size_px: int | None = None,
    range: PixelChoice = "auto",
    pool: Pool = "auto",
    offline: bool | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Module:
    """Make a published network ready.

    Args:
        handle: see `topwork.backbones.hub.handle`.
        size_px: the side of its square input; None for its own, or 224 px where it has none.
        range: the values it wants; "auto" for what its source states or it shows, else its format's custom.
        pool: how a transformer's last tokens become features; "auto" for what its library does.
        offline: fetch nothing; None for what TOPWORK_OFFLINE says.
        progress: told of the bytes fetched.
        say: told of what else happens while fetching.

    Raises:
        InputError: an unknown handle, a size or range that is out of place, a network that takes no picture.
        TopworkError: it can't be fetched.
        MissingExtra: it needs a package that is not installed.
    """
    parsed = parse(handle)
    if range not in get_args(PixelChoice):
        raise InputError(one_of(range, get_args(PixelChoice), what="range of pixels"))
    if size_px is not None and not SMALLEST_PX <= size_px <= LARGEST_PX:
        raise InputError(f"the input size must be {SMALLEST_PX} to {LARGEST_PX} px; got {size_px}")
    if parsed.kind == "builtin":
        if pool != "auto":
            raise InputError(f"{handle}: it has no tokens; leave --pool out")
        return _built_in(parsed, size_px, range)
    if parsed.kind in ("keras", "kerashub"):
        return _published(parsed, size_px, range, pool, None)
    path = _locate(resolve(parsed, offline=offline, progress=progress, say=say), str(parsed))
    if path.is_file() and ".safetensors" in path.name.lower():
        return _from_weights(parsed, path, size_px, range, pool)
    return _published(parsed, size_px, range, pool, path)


def _built_in(handle: Handle, size_px: int | None, range: PixelChoice) -> Module:
    if range not in ("auto", "0..255"):
        raise InputError(f"{handle}: its range of pixels is known; leave --pixels out")
    lite = builtin.LITES[handle.name]
    graph = builtin.build(handle.name, size_px=size_px or lite.size_px)
    stages = tuple(n for output in graph.outputs for n in output.names if n.startswith("block"))
    return Module(
        handle=str(handle),
        graph=graph,
        stages=stages,
        rectified=True,
        size_px=size_px or lite.size_px,
        size_fixed=False,
        pixels=pixels("0..255", "stated"),
        license="Apache-2.0",
        source=f"the package {lite.package}",
        notes=(),
    )


def _from_weights(handle: Handle, path: Path, size_px: int | None, range: PixelChoice, pool: Pool) -> Module:
    """A network of which the source has its weights and settings alone: it is built here."""
    from topwork.backbones.weights.build import build_network  # only here: 40 ms to import

    name, stated = str(handle), _stated(path)
    size = size_px or (stated.size_px if stated else None)
    network, size = build_network(path, size_px=size, pool=pool, shown=name)
    chosen = _pixels(None, None, range, stated.pixels if stated else None, ".onnx")
    entry = ImageInput("NCHW", size, takes_bytes=False)
    graph = dress(network.graph, entry, size_px=size, pixels=chosen, name=name)
    assumed = _assumed(chosen)
    pooled = (f"its features are {network.pooled}",) if network.pooled else ()
    return Module(
        handle=name,
        graph=graph,
        stages=network.stages,
        rectified=network.rectified,
        size_px=size,
        size_fixed=False,
        pixels=chosen,
        license=license_of(path),
        source=_source(handle),
        notes=(*pooled, *(stated.notes if stated else ()), *assumed, *_which(handle, path)),
        assumed=assumed,
        signed=network.signed,
        framing=stated.framing_at(size) if stated else None,
    )


def _published(
    handle: Handle, size_px: int | None, range: PixelChoice, pool: Pool, path: Path | None
) -> Module:
    """A network of which the source has the graph; `path` is None for one that a framework makes."""
    name = str(handle)
    known = look_up(name) if handle.kind == "url" else None
    if known is not None and known.size_fixed and size_px not in (None, known.size_px):
        raise InputError(f"{name}: it takes pictures of {known.size_px} px only; leave --size out")
    told = _stated(path) if path is not None and path.is_file() else None
    graph, suffix, stated, notes = _read(handle, size_px, path)
    entry = find_image_input(graph, name=name)
    size = size_px or entry.size_px or (told.size_px if told else None) or (known.size_px if known else None)
    assumed: tuple[str, ...] = ()
    if size is None:
        size = USUAL_PX
        assumed = (f"it takes any size: {USUAL_PX} px are assumed (--size chooses)",)
    chosen = _pixels(graph, entry, range, told.pixels if told and told.pixels else stated, suffix)
    assumed = (*assumed, *_assumed(chosen))
    dressed = dress(graph, entry, size_px=size, pixels=chosen, name=name)
    found = trunk.find_trunk(dressed, name=name, pool=pool)
    assumed = (*assumed, found.doubt) if found.doubt else assumed
    if found.cut:
        notes = (*notes, f"{found.cut} was taken off")
    if found.pooled:
        notes = (*notes, f"its features are {found.pooled}")
    return Module(
        handle=name,
        graph=found.graph,
        stages=found.stages,
        rectified=found.rectified,
        size_px=size,
        size_fixed=known.size_fixed if known is not None else entry.size_px is not None,
        pixels=chosen,
        license=license_of(path) if path is not None else UNSTATED,
        source=_source(handle),
        notes=(*notes, *(told.notes if told else ()), *assumed, *(_which(handle, path) if path else ())),
        assumed=assumed,
        signed=found.signed,
        framing=told.framing_at(size) if told else None,
    )


def _stated(path: Path) -> Preprocessing | None:
    """What the files beside a module, or above its folder `onnx`, state of pictures."""
    from topwork.backbones.preprocessing import FILES, read_preprocessing

    return read_preprocessing({name: place for name in FILES if (place := _beside(path, name)) is not None})


def _beside(path: Path, name: str) -> Path | None:
    folders = [path.parent, *([path.parent.parent] if path.parent.name == "onnx" else [])]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def license_of(path: Path) -> str:
    """The licence that a repository's card states: `license:` in its front matter."""
    card = _beside(path, "README.md")
    if card is not None:
        head = card.read_text(encoding="utf-8", errors="replace")[:20_000].split("\n---", 1)[0]
        if head.startswith("---") and (
            found := re.search(r"^license: *[\"']?([\w.-]{2,40})(?![\w.-])", head, re.MULTILINE)
        ):
            return found[1]
    return UNSTATED


def _which(handle: Handle, path: Path) -> tuple[str, ...]:
    """A note of the file that was taken, where the handle names none."""
    if handle.kind != "hf" or len(handle.name.split("/")) > 2:
        return ()
    shown = f"onnx/{path.name}" if path.parent.name == "onnx" else path.name
    return (f"of its repository's files, {shown} was taken",)


def _assumed(chosen: Pixels) -> tuple[str, ...]:
    if chosen.how != "assumed":
        return ()
    return (f"pixels {chosen.range} are assumed, as is usual for its format: --pixels chooses",)


def _read(
    handle: Handle, size_px: int | None, path: Path | None
) -> tuple[ov.Model, str, PixelRange | None, tuple[str, ...]]:
    """The graph; its format's suffix, "" for a SavedModel; the range that its source states; notes."""
    if path is None:
        made = _converted(handle, handle, size_px)
        return read_graph(made.graph), ".xml", "0..1", made.notes
    suffix = "" if path.is_dir() else path.suffix.lower()
    stated: PixelRange | None = "0..1" if handle.kind in ("url", "kaggle") and not suffix else None
    try:
        return read_graph(path), suffix, stated, ()
    except UnreadableError as error:
        made = _converted(handle, path, size_px)
        notes = (f"it was converted through TensorFlow: {error}", *made.notes)
        if made.runs_code:
            notes = (*notes, "TensorFlow ran its operators while converting: convert only what you trust")
        return read_graph(made.graph), suffix, stated, notes


def _converted(handle: Handle, source: Handle | Path, size_px: int | None) -> Converted:
    """What needs a framework, by way of it; once for each module and size. `source`: the module, or its file."""
    from topwork.backbones.conversion import convert

    def make(folder: Path) -> Converted:
        if isinstance(source, Path):
            make_it = convert.convert_saved_model if source.is_dir() else convert.convert_keras_file
            return make_it(source, folder, size_px=size_px)
        make_named = convert.convert_application if source.kind == "keras" else convert.convert_kerashub
        return make_named(source.name, folder, size_px=size_px)

    key = str(source) if isinstance(source, Handle) else content_digest(source)
    return converted([key, str(size_px or "its own size")], make, handle=str(handle))


def content_digest(path: Path) -> str:
    """SHA-256 (hex) over a file's bytes, or over the names and bytes of all files in a folder."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                total.update(f"{file.relative_to(path).as_posix()}\0".encode())
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _pixels(
    graph: ov.Model | None,
    entry: ImageInput | None,
    range: PixelChoice,
    stated: Pixels | PixelRange | None,
    suffix: str,
) -> Pixels:
    if range != "auto":
        return pixels(range, "chosen")
    if entry is not None and entry.takes_bytes:
        return pixels("0..255", "stated")
    if isinstance(stated, Pixels):
        return stated
    if stated is not None:
        return pixels(stated, "stated")
    found = find_range(graph, entry.channel_axis) if graph is not None and entry is not None else None
    return pixels(found, "found") if found else pixels(CUSTOM[suffix], "assumed")


def _locate(path: Path, name: str) -> Path:
    """The module in what was fetched: the folder itself, or the one SavedModel or file in it."""
    if path.is_file() or (path / "saved_model.pb").is_file():
        return path
    usual = [path / one for one in USUAL if (path / one).is_file()]
    if usual:
        return usual[0]
    inside = [p.parent for p in sorted(path.rglob("saved_model.pb"))]
    inside += [p for p in sorted(path.rglob("*")) if p.is_file() and p.suffix.lower() in SUFFIXES]
    if len(inside) != 1:
        told = ", ".join(p.relative_to(path).as_posix() for p in inside[:8]) or "none of them"
        raise InputError(
            f"{name}: expected one SavedModel, .onnx, .tflite, .xml or .keras file in it; got {told}"
        )
    return inside[0]


def _source(handle: Handle) -> str:
    if handle.kind == "path":
        return str(Path(handle.name).expanduser().resolve())
    if handle.kind == "kaggle":
        return f"https://www.kaggle.com/models/{handle.name}"
    if handle.kind == "hf":
        return "https://huggingface.co/" + "/".join(handle.name.split("@")[0].split("/")[:2])
    if handle.kind == "keras":
        return "https://keras.io/api/applications/"
    return handle.name if handle.kind == "url" else "https://keras.io/keras_hub/presets/"
