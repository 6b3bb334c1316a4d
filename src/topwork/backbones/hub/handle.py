"""A module's name: one frozen record for every way to write it, and back.

| written | kind |
|---|---|
| `efficientnet-lite0` | built in |
| `https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5`, any https address of a file or archive | url |
| `https://www.kaggle.com/models/google/…`, `kaggle:owner/model/framework/variation[/version]` | kaggle |
| `keras:InceptionV3` | keras |
| `kerashub:PRESET` | kerashub |
| `hf:owner/repo[@revision][/file.onnx]` | hf |
| a SavedModel folder, an `.onnx`, `.tflite`, `.xml`, `.keras` or `.safetensors` file, or the latter's folder | path |
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from topwork.backbones.efficientnet_lite import LITES
from topwork.errors import InputError

Kind = Literal["builtin", "url", "kaggle", "keras", "kerashub", "hf", "path"]
PREFIXES: tuple[Kind, ...] = ("kaggle", "keras", "kerashub", "hf")
SUFFIXES = (".onnx", ".tflite", ".xml", ".keras", ".safetensors")
# Taken of a repository, or of its folder, where none is named: the first that is there; weights beside a config.json.
USUAL = (
    *("model.safetensors", "model.safetensors.index.json", "onnx/model.onnx", "onnx/vision_model.onnx"),
    *("model.onnx", "vision_model.onnx"),
)
FORMS = (
    *LITES,
    "https://…",
    "kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]",
    "keras:NAME",
    "kerashub:PRESET",
    "hf:OWNER/REPO[/FILE]",
    "a SavedModel folder",
    "an .onnx, .tflite, .xml, .keras or .safetensors file",
)

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_KAGGLE = re.compile(rf"({_PART})/({_PART})/({_PART})/({_PART})(?:/([0-9]+))?")
# Kaggle's pages: /models/O/M/F/V[/N], and the longer /models/O/M/frameworks/F/variations/V[/versions/N].
_KAGGLE_LONG = re.compile(
    rf"({_PART})/({_PART})/frameworks/({_PART})/variations/({_PART})(?:/versions/([0-9]+))?"
)
_HF = re.compile(rf"{_PART}/{_PART}(?:@[A-Za-z0-9._-]+)?(?:/[^/].*)?")
_WORD = re.compile(_PART)


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a module comes from; `str` gives the text that `parse` reads back.

    `name`: the built-in's name; the address; `owner/model/framework/variation[/version]`; the name of the class in
    `keras.applications`; KerasHub's preset; `owner/repo[@revision][/file]`; the path.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.kind in PREFIXES else self.name


def parse(text: str) -> Handle:
    """Read a handle; nothing is opened but, for a path, the folder's listing.

    Raises:
        InputError: it is none of the forms, with those that there are and the nearest name.

    >>> parse("https://www.kaggle.com/models/google/mobilenet-v2/tensorFlow2/100-224-feature-vector/2")
    Handle(kind='kaggle', name='google/mobilenet-v2/tensorFlow2/100-224-feature-vector/2')
    >>> str(parse("keras:InceptionV3"))
    'keras:InceptionV3'
    """
    text = text.strip()
    if text in LITES:
        return Handle("builtin", text)
    prefix, _, rest = text.partition(":")
    if "://" in text:
        return _address(text)
    for kind in PREFIXES:
        if prefix == kind:
            return _prefixed(kind, rest, text)
    path = Path(text).expanduser()
    if path.exists():
        return _path(path, text)
    if path.suffix.lower() in SUFFIXES or len(path.parts) > 1 or path.is_absolute():
        raise InputError(f"no such file or folder: {text}; expected a SavedModel folder or {_files()}")
    raise InputError(_unknown(text))


def _address(text: str) -> Handle:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise InputError(f"expected an https:// address; got {text!r}: what comes unsigned can be anything")
    if parts.hostname.removeprefix("www.") == "kaggle.com":
        path = parts.path.strip("/").removeprefix("models/")
        found = _KAGGLE_LONG.fullmatch(path) or _KAGGLE.fullmatch(path)
        if not parts.path.startswith("/models/") or found is None:
            raise InputError(
                f"expected https://www.kaggle.com/models/OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; got {text!r}: "
                "choose a variation on the model's page and copy its address"
            )
        return Handle("kaggle", "/".join(part for part in found.groups() if part))
    return Handle("url", text)


def _prefixed(kind: Kind, rest: str, text: str) -> Handle:
    pattern, form = {
        "kaggle": (_KAGGLE, "kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"),
        "keras": (_WORD, "keras:NAME, such as keras:InceptionV3"),
        "kerashub": (re.compile(r"\S+"), "kerashub:PRESET"),
        "hf": (_HF, "hf:OWNER/REPO[@REVISION][/FILE]"),
    }[kind]
    if not pattern.fullmatch(rest) or ".." in rest.split("/"):
        raise InputError(f"expected {form}; got {text!r}")
    return Handle(kind, rest)


def _path(path: Path, text: str) -> Handle:
    if path.is_dir():
        if not any((path / name).is_file() for name in ("saved_model.pb", *USUAL)):
            if (path / "tfhub_module.pb").is_file():
                raise InputError(
                    f"{text}: a module of TF1's format without its saved_model.pb; fetch it whole"
                )
            raise InputError(
                f"{text}: expected a SavedModel folder, or one with {USUAL[0]} or {USUAL[2]}; it holds none"
                + (": unpack it, or name one of its files" if any(path.iterdir()) else " (it is empty)")
            )
    elif path.suffix.lower() not in SUFFIXES and path.name not in USUAL:
        raise InputError(f"{text}: expected {_files()}, or a SavedModel folder")
    return Handle("path", text)


def _files() -> str:
    return f"a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def _unknown(text: str) -> str:
    known = [*LITES, *(f"{prefix}:" for prefix in PREFIXES)]
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown backbone {text!r}{hint} Known: {'; '.join(FORMS)}"
