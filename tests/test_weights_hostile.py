"""The reader of legacy PyTorch files: hostile ones run nothing, read no other memory and claim none."""

from __future__ import annotations

import contextlib
import copyreg
import io
import os
import pickle
import struct
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import legacy_torch as lt
from topwork.backbones.torch_weights import MAGIC
from topwork.errors import InputError

# --- hostile pickles --------------------------------------------------------------------------------------


def _attacks(command: str) -> dict[str, bytes]:
    """Instructions, each of which runs `command` when it is unpickled without care."""
    module = os.system.__module__.encode()  # posix, or nt
    system = b"c" + module + b"\nsystem\n"
    arguments = lt.put((command,))
    short = b"".join(b"\x8c" + bytes([len(text)]) + text for text in (module, b"system"))
    code = f"__import__('os').system({command!r})"
    imported = lt.call(b"cbuiltins\n__import__\n", "os")
    return {
        "REDUCE": system + arguments + b"R",
        "eval": lt.call(b"cbuiltins\neval\n", code),
        "eval by its old name": lt.call(b"c__builtin__\neval\n", code),
        "getattr": lt.call(b"cbuiltins\ngetattr\n", imported, "system") + arguments + b"R",
        "STACK_GLOBAL": short + b"\x93" + arguments + b"R",
        "INST": b"(" + lt.put(command) + b"i" + system[1:],
        "OBJ": b"(" + system + lt.put(command) + b"o",
        "NEWOBJ": b"csubprocess\nPopen\n"
        + lt.put((command, -1, None, None, None, None, None, True, True))
        + b"R",
        "EXT1": b"\x82\xf7" + arguments + b"R",
        "EXT2": b"\x83\xf7\x00" + arguments + b"R",
        "EXT4": b"\x84\xf7\x00\x00\x00" + arguments + b"R",
        "under a tensor's name": lt.put({"w": system + arguments + b"R"}),
        "as a storage": lt.tensor(system + arguments + b"R", (1,), (1,)),
        "in a storage's identity": lt.put(("storage", system + arguments + b"R", "7", "cpu", 1, None)) + b"Q",
        "as a state": lt.ORDERED + b")R" + system + arguments + b"Rb",
    }


@pytest.fixture
def registered() -> Any:
    """`os.system` in the extension registry, and found once, so that its number alone gives it."""
    module = os.system.__module__
    copyreg.add_extension(module, "system", 0xF7)
    pickle.loads(b"\x80\x02\x82\xf7.")
    yield
    copyreg.remove_extension(module, "system", 0xF7)
    copyreg.clear_extension_cache()


class _Careless(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return print if module.startswith("torch") else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return pid


@pytest.mark.parametrize("attack", _attacks(""))
def test_what_a_hostile_file_asks_for_is_not_done(attack: str, tmp_path: Path, registered: Any) -> None:
    canary = tmp_path / "canary"
    instructions = _attacks(f'echo 1 > "{canary}"')[attack]
    parts = [lt.pickled(lt.put(part)) for part in (MAGIC, 1001, lt.WORDS)]
    parts += [lt.pickled(lt.table(lt.HONEST)), lt.pickled(lt.put(list(lt.STORAGES)))]
    for place in range(5):
        hostile = [*parts[:place], lt.pickled(instructions), *parts[place + 1 :]]
        with pytest.raises(InputError, match="expected a"):
            lt.load(b"".join(hostile), tmp_path)
    assert not canary.exists()
    # The same instructions do work on who trusts them: the test would notice.
    with contextlib.suppress(Exception):
        found = _Careless(io.BytesIO(lt.pickled(instructions))).load()
        if isinstance(found, subprocess.Popen):
            found.wait()
    assert canary.exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"cposix\nsystem\n", r"tensors alone; it asks for posix\.system; not loaded"),
        (b"ctorch\nload\n", r"it asks for torch\.load"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
            "it asks for torch._utils._rebuild_tensor_v2.__gl",
        ),
        (b"ccollections\nOrderedDict.fromkeys\n", "it asks for collections.OrderedDict.fromkeys"),
        (b"\x82\xf7", "it asks for pickle's EXT1"),
        (b"(i", "can't be read"),
        (lt.put([]), "it holds a list"),
        (lt.put({"w": 3}), "it holds something else than named tensors"),
        (b"}" + lt.put(3) + lt.HONEST["bias"] + b"s", "it holds something else than named tensors"),
        (lt.put({"w": lt.tensor(lt.put(3), (1,), (1,))}), "'w' has a storage of an unknown kind"),
        (lt.put({"w": lt.tensor(lt.storage(7, 6), (1,), (1,))}), "'w' has a storage of an unknown kind"),
        (
            lt.put({"w": lt.tensor(lt.storage("7", 6, view=(1, 2, 3)), (1,), (1,))}),
            "a storage of an unknown kind",
        ),
        (lt.put({"w": lt.put(("storage", "O", "7", "cpu", 6)) + b"Q"}), "something else than named tensors"),
        (b"0" * 5, "it asks for pickle's POP"),
        (b")" + b"\x85" * 20_000, "it nests tuples"),
        (lt.put(()) + b"r" + struct.pack("<I", 2**31 - 1), "it claims memory that it has no use for"),
    ],
)
def test_what_is_refused_is_named(table: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        lt.load(lt.file(table, lt.STORAGES), tmp_path)


# --- tensors that lie -------------------------------------------------------------------------------------

BIG = 2**62
LIES: dict[str, tuple[object, object, object, object]] = {  # storage count, shape, strides, offset
    "negative stride": (6, (3,), (-1,), 0),
    "negative stride inside": (6, (3,), (-1,), 5),
    "negative offset": (6, (3,), (1,), -2),
    "negative size": (6, (-3,), (1,), 0),
    "two negative sizes": (6, (-3, -2), (1, 1), 0),
    "too long": (6, (7,), (1,), 0),
    "too far": (6, (3,), (3,), 0),
    "offset beyond": (6, (), (), 6),
    "stride of nothing": (6, (1000, 1000, 1000), (0, 0, 0), 0),
    "product beyond 64 bits": (6, (2**32, 2**32), (1, 1), 0),
    "stride beyond 64 bits": (6, (1,), (2**70,), 0),
    "stride that wraps around": (6, (2,), (BIG,), 0),
    "offset beyond 64 bits": (6, (1,), (1,), 2**70),
    "no elements, but huge": (6, (0, BIG, BIG), (1, 1, 1), 0),
    "too many dimensions": (6, (1,) * 100, (1,) * 100, 0),
    "lengths that differ": (6, (2, 3), (1,), 0),
    "a list for a shape": (6, b"](K\x02K\x03e", (3, 1), 0),
    "truths for numbers": (6, (True,), (True,), 0),
    "text for numbers": (6, ("1",), (1,), 0),
    "nothing for a shape": (6, None, None, 0),
    "storage shorter than told": (10**6, (10**6,), (1,), 0),
    "storage of 64 bits": (2**61, (2**61,), (1,), 0),
    "storage of a negative length": (-1, (1,), (1,), 0),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("built", [False, True], ids=["at once", "changed later"])
def test_no_lie_about_a_tensor_reads_other_memory(lie: str, built: bool, tmp_path: Path) -> None:
    count, shape, strides, offset = LIES[lie]
    storage = lt.storage("7", count)
    if built:
        # An honest record first; then BUILD writes other values into it.
        state = storage + b"".join(map(lt.put, (offset, shape, strides)))
        tensor = lt.tensor(lt.storage("7", 6), (6,), (1,)) + b"(" + state + b"tb"
        listed = lt.tensor(lt.storage("7", 6), (6,), (1,)) + b"](" + state + b"eb"
    else:
        tensor = listed = lt.tensor(storage, shape, strides, offset)
    tracemalloc.start()
    try:
        for each in (tensor, listed):
            with pytest.raises(InputError, match="expected a"):
                lt.load_one(tmp_path, each)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_record_changed_after_it_was_made_is_checked_as_it_is_then(tmp_path: Path) -> None:
    honest = lt.tensor(lt.storage("7", 6), (6,), (1,))
    state = lt.storage("7", 6) + b"".join(map(lt.put, (1, (2, 2), (1, 3))))
    np.testing.assert_array_equal(lt.load_one(tmp_path, honest + b"](" + state + b"eb"), [[1, 4], [2, 5]])


@pytest.mark.parametrize("method", ["items", "values", "keys", "__iter__"])
def test_a_dictionary_whose_methods_are_hidden_is_checked_all_the_same(method: str, tmp_path: Path) -> None:
    # BUILD gives the dictionary an attribute: `table.items()` would now make an empty dictionary.
    hide = lt.put({method: lt.ORDERED}) + b"b"
    bad = lt.file(
        lt.table({"w": lt.tensor(lt.storage("7", 6), (7,), (1,))}) + hide, {"7": np.zeros(6, np.float32)}
    )
    with pytest.raises(InputError, match="reaches past its storage"):
        lt.load(bad, tmp_path)
    assert list(lt.load(lt.file(lt.table(lt.HONEST) + hide, lt.STORAGES), tmp_path)) == list(lt.HONEST)


def test_what_a_file_writes_on_the_functions_it_is_given_does_not_last(tmp_path: Path) -> None:
    poison = (
        b"N" + lt.put({"__defaults__": (1, 2, 3, 4)}) + b"\x86b"
    )  # (None, slots): setattr on what is below
    for target in (lt.REBUILD, lt.ORDERED, b"ctorch\nFloatStorage\n"):
        with pytest.raises(InputError):
            lt.load(lt.file(target + poison, lt.STORAGES), tmp_path)
    state = (4, ">", None, None, None, 8, 4, 0)  # numpy's own dtypes must not take a state
    with pytest.raises(InputError):
        lt.load(lt.file(b"ctorch\nFloatStorage\n" + lt.put(state) + b"b", lt.STORAGES), tmp_path)
    assert np.dtype("<f4").str == "<f4"
    np.testing.assert_array_equal(lt.load(lt.WHOLE, tmp_path)["kernel"], lt.KERNEL)


def test_many_tensors_on_one_storage_do_not_multiply_its_memory(tmp_path: Path) -> None:
    tensors = {f"w{i}": lt.tensor(lt.storage("7", 10_000), (10_000,), (1,)) for i in range(100)}
    with pytest.raises(InputError, match="its tensors claim more than the file holds"):
        lt.load(lt.file(lt.table(tensors), {"7": np.zeros(10_000, np.float32)}), tmp_path)


@pytest.mark.parametrize(
    "instruction",
    [
        b"X\xff\xff\xff\x7f",  # text of 2 GB
        b"\x8e" + struct.pack("<Q", BIG),  # bytes of 4 EB
        b"\x95" + struct.pack("<Q", BIG),  # a frame of 4 EB
        b"\x8b\xff\xff\xff\x7f",  # a number of 2 GB
        b"Nr\xff\xff\xff\x7f",  # place 2^31 - 1 of a memory
    ],
)
def test_a_claim_of_memory_gets_none(instruction: bytes, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            lt.load(lt.file(instruction, lt.STORAGES), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


PIECES = [
    *(bytes([code]) for code in b"(.)}]Ntuesab0R\x85\x86\x87Q"),
    *(lt.ORDERED, lt.REBUILD, b"ctorch\nFloatStorage\n", b"cos\nsystem\n"),
    *(lt.put(v) for v in ("storage", "7", "items", 0, -1, 6, 2**40, (6,), (1,), True)),
    *(lt.storage("7", 6), lt.tensor(lt.storage("7", 6), (6,), (1,))),
]


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_with_any_instructions(tmp_path: Path, pieces: list[bytes]) -> None:
    start = b"".join(lt.pickled(lt.put(part)) for part in (MAGIC, 1001, lt.WORDS))
    end = lt.pickled(lt.put(["7"])) + struct.pack("<q", 6) + np.arange(6, dtype=np.float32).tobytes()
    lt.check_outcome(start + lt.pickled(b"".join(pieces)) + end, tmp_path)
    lt.check_outcome(start + lt.pickled(lt.table(lt.HONEST) + b"".join(pieces)) + end, tmp_path)
