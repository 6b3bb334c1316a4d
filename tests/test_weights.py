"""The reader of legacy PyTorch files: honest files give their tensors, damaged ones are named as such."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import legacy_torch as lt
from topwork.backbones import efficientnet_lite as builtin
from topwork.backbones.torch_weights import MAGIC, load_weights
from topwork.errors import InputError

# --- honest files -----------------------------------------------------------------------------------------


def test_an_honest_file_gives_its_tensors_in_order(tmp_path: Path) -> None:
    found = lt.load(lt.WHOLE, tmp_path)
    assert list(found) == ["kernel", "bias", "steps"]
    np.testing.assert_array_equal(found["kernel"], lt.KERNEL)
    assert found["kernel"].flags.c_contiguous
    np.testing.assert_array_equal(found["bias"], np.array([1, 2, 3], np.float16))
    assert found["steps"].shape == ()
    assert int(found["steps"]) == 2**40
    assert [a.dtype.str for a in found.values()] == ["<f4", "<f2", "<i8"]


def test_any_strides_within_the_storage_are_numpys(tmp_path: Path) -> None:
    found = lt.load_one(tmp_path, lt.tensor(lt.storage("7", 6), (2, 2), (1, 3), 1))
    np.testing.assert_array_equal(found, [[1, 4], [2, 5]])


def test_a_tensor_of_no_elements(tmp_path: Path) -> None:
    assert lt.load_one(tmp_path, lt.tensor(lt.storage("7", 6), (0, 3), (3, 1))).shape == (0, 3)


def test_the_attributes_that_pytorch_gives_a_state_dictionary_are_passed_over(tmp_path: Path) -> None:
    table = lt.table(lt.HONEST) + lt.put({"_metadata": lt.call(lt.ORDERED)}) + b"b"
    assert list(lt.load(lt.file(table, lt.STORAGES), tmp_path)) == list(lt.HONEST)


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


# --- damaged files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a legacy PyTorch weights file; it can't be read"),
        (b"<!DOCTYPE html><html>", "can't be read|it asks for pickle's"),
        (lt.pickled(lt.put(MAGIC)) + lt.pickled(lt.put(1002)), "its first numbers are not PyTorch's"),
        (lt.WHOLE.replace(b"\x88", b"\x89", 1), "not written on a little-endian machine"),
        (lt.WHOLE[:-1], "shorter than it says: the download may have broken off"),
        (
            lt.file(lt.table(lt.HONEST), lt.STORAGES, names=["7", "8"]),
            "its storages are not those that its tensors name",
        ),
        (
            lt.file(lt.table(lt.HONEST), lt.STORAGES, names=["7", "8", "9", "9"]),
            "its list of storages is damaged",
        ),
        (lt.file(lt.table(lt.HONEST), lt.STORAGES | {"9": np.arange(2)}), "it is shorter than it says"),
    ],
)
def test_a_damaged_file_says_so(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        lt.load(data, tmp_path)


def test_the_newer_zip_format_is_named_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", lt.pickled(lt.table(lt.HONEST)))
    with pytest.raises(InputError, match=r"the zip format .* since 1\.6: save it again with `torch\.save\("):
        load_weights(path)


def test_cut_off_anywhere(tmp_path: Path) -> None:
    for size in range(len(lt.WHOLE)):
        with pytest.raises(InputError):
            lt.load(lt.WHOLE[:size], tmp_path)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(lt.WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_with_any_bytes_changed(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(lt.WHOLE)
    for place, value in changes:
        data[place] = value
    lt.check_outcome(bytes(data), tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, len(lt.WHOLE)), st.binary(max_size=12), st.integers(0, 12))
def test_with_any_bytes_put_in(tmp_path: Path, place: int, new: bytes, gone: int) -> None:
    lt.check_outcome(lt.WHOLE[:place] + new + lt.WHOLE[place + gone :], tmp_path)
