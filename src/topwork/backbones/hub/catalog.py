"""What is known of published modules before they are fetched: TensorFlow Hub's image feature vectors.

`catalog.tsv` beside this file has the facts, and their source in its first line. A module that is fetched is
believed by its own signature; the catalog says what to expect, and lets people look without fetching.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

TFHUB = "https://tfhub.dev/"


@dataclass(frozen=True, slots=True)
class Known:
    """A published module's facts. `size_fixed`: it takes pictures of that size only."""

    name: str  # publisher/…, without host and version
    version: int
    width: int
    size_px: int
    size_fixed: bool
    format: str  # "saved_model_2"; "hub" for TF1's, which needs a conversion through TensorFlow

    @property
    def handle(self) -> str:
        """The address to fetch it by."""
        return f"{TFHUB}{self.name}/{self.version}"


@cache
def known_modules() -> tuple[Known, ...]:
    """All of them, by name."""
    text = (files("topwork.backbones.hub") / "catalog.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    names, *facts = rows
    found = []
    for row in facts:
        fact = dict(zip(names, row, strict=True))
        found.append(
            Known(
                name=fact["tfhub_handle"],
                version=int(fact["version"]),
                width=int(fact["num_features"]),
                size_px=int(fact["default_size"]),
                size_fixed=fact["size_fixed"] == "True",
                format=fact["format"],
            )
        )
    return tuple(sorted(found, key=lambda known: known.name))


def look_up(url: str) -> Known | None:
    """The facts of the module at a tfhub.dev address, whatever its version; None where it is not known.

    >>> look_up("https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5").width
    2048
    """
    parts = urlsplit(url)
    if parts.hostname != "tfhub.dev":
        return None
    name = parts.path.strip("/")
    head, _, last = name.rpartition("/")
    by_name = {known.name: known for known in known_modules()}
    return by_name.get(head if last.isdecimal() else name)


def search(words: str) -> tuple[Known, ...]:
    """The modules whose names hold every word, or else those with the nearest names.

    >>> [known.size_px for known in search("mobilenet_v2_100 224")]
    [224]
    """
    wanted = words.lower().split()
    found = tuple(known for known in known_modules() if all(word in known.name.lower() for word in wanted))
    if found:
        return found
    by_model = {known.name.split("/")[-2]: known for known in known_modules()}
    near = difflib.get_close_matches("_".join(wanted), by_model, n=5, cutoff=0.5)
    return tuple(by_model[name] for name in near)
