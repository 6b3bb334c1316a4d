"""Turn a folder of photos, one sub-folder a class, into a data set that TensorFlow Datasets loads by its name.

python examples/folder_as_tfds.py PHOTOS NAME DATA_DIR [--shuffled SEED]
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

import topwork


def prepare(photos: str, name: str, data_dir: str, *, seed: int = 0) -> None:
    """Write the data set `name`, one split "train", its images in an order that `seed` gives."""
    dataset = topwork.load(photos).shuffle(seed)
    labels = tfds.features.ClassLabel(names=dataset.classes)
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": labels})

    def info(builder: Any) -> Any:
        return tfds.core.DatasetInfo(builder=builder, features=features, supervised_keys=("image", "label"))

    def examples() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, example in enumerate(dataset):
            yield number, {"image": io.BytesIO(example.image.read()), "label": example.label}

    def splits(builder: Any, manager: Any) -> dict[str, Any]:
        return {"train": examples()}

    methods = {"_info": info, "_split_generators": splits, "_generate_examples": examples}
    camel = "".join(word.capitalize() for word in name.split("_"))  # TFDS names a data set after its class
    version = {"VERSION": tfds.core.Version("1.0.0"), "__module__": __name__}
    builder = type(camel, (tfds.core.GeneratorBasedBuilder,), methods | version)
    builder(data_dir=data_dir).download_and_prepare()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a TFDS data set of a folder of photos.")
    parser.add_argument("photos")
    parser.add_argument("name")
    parser.add_argument("data_dir")
    parser.add_argument("--shuffled", type=int, default=0, metavar="SEED")
    options = parser.parse_args()
    prepare(options.photos, options.name, options.data_dir, seed=options.shuffled)
