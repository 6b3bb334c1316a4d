"""The reader of the published weights: three files, known by their SHA-256; and nothing but tensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from topwork.backbones import efficientnet_lite as builtin
from topwork.backbones.torch_weights import load_weights


def test_the_published_file() -> None:
    found = builtin._read(builtin.LITES["efficientnet-lite0"])
    assert len(found) == 296
    assert next(iter(found)) == "_conv_stem.weight"
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert found["_fc.weight"].shape == (1000, 1280)
    blocks = {name.split(".")[1] for name in found if name.startswith("_blocks.")}
    assert blocks == {str(i) for i in range(16)}
    assert found["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    for array in found.values():
        assert array.dtype == np.float32 or array.shape == ()  # the counters of batches seen
        assert np.isfinite(array).all()
    # 4.65 million, as the model's page in the TPU repository says ("4.7M").
    learnt = [a.size for n, a in found.items() if "running" not in n and "num_batches" not in n]
    assert sum(learnt) == 4_652_008


def test_a_file_that_asks_for_more_than_tensors_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match=r"expected tensors alone; the file asks for .*print"):
        load_weights(path)


def test_another_file_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in (1, 1001, {}, {}, [])))
    with pytest.raises(ValueError, match=r"expected a PyTorch file of before 1\.6"):
        load_weights(path)
