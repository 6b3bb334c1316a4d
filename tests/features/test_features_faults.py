"""Feature extraction under real faults: killed, interrupted, a full disk, two processes at once."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from photos import SIZE_PX, finished, start, start_python, write_noise, write_shapes
from topwork.backbones.backbone import Backbone
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.features.extract import BATCH, extract, open_store
from topwork.features.store import Store

EXTRACT = f"""
import sys
from pathlib import Path
from topwork.backbones.backbone import load_backbone
from topwork.data.sources import load_images
from topwork.features.extract import extract, open_store
backbone = load_backbone("efficientnet-lite0", size_px={SIZE_PX}, precision="f32")
dataset = load_images(sys.argv[1])
done = 0
def progress(n):
    global done
    done += n
    print(done, flush=True)
with open_store(backbone.facts) as store:
    print("ready", flush=True)
    extract(dataset, backbone, store=store, progress=progress)
"""


def extracted(dataset: Dataset, backbone: Backbone, store: Store) -> np.ndarray:
    return extract(dataset, backbone, store=store).matrix()


@pytest.mark.slow
def test_killed_at_any_moment_the_next_call_goes_on(tmp_path: Path, backbone: Backbone, cache: Path) -> None:
    count = 850
    dataset = write_noise(tmp_path / "noise", count)
    clock = random.Random(1)
    stored = 0
    for _ in range(10):
        process = start_python(EXTRACT, tmp_path / "noise")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # Past what is stored already, so that each run is killed while it computes.
        until = stored + clock.randint(1, 75)
        while (line := process.stdout.readline()) and int(line) <= until:
            pass
        killer = threading.Timer(clock.uniform(0, 0.01), process.kill)
        killer.start()
        with process:
            out = process.stdout.read()  # `communicate` would miss what `readline` has read ahead
        killer.join()
        assert process.returncode == -signal.SIGKILL
        done = max([until, *map(int, out.split("\n")[:-1])])
        with open_store(backbone.facts) as store:
            assert store.set_aside is None
            before, stored = stored, len(store)
        assert stored >= before
        assert stored >= done - BATCH  # what was told done, less one batch
    assert 0 < stored < count
    with open_store(backbone.facts) as store:
        features = extract(dataset, backbone, store=store)
        assert features.computed == count - stored
        matrix = features.matrix()
    with open_store_in(tmp_path / "another", backbone) as store:
        np.testing.assert_array_equal(matrix, extracted(dataset, backbone, store))
    assert cache.is_dir()


def open_store_in(root: Path, backbone: Backbone) -> Store:
    return Store.open(backbone.facts.fingerprint, backbone.facts.width, half=True, root=root)


@pytest.mark.slow
def test_two_processes_on_one_store_at_once(tmp_path: Path, backbone: Backbone, cache: Path) -> None:
    dataset = write_noise(tmp_path / "noise", 400)
    both = [start_python(EXTRACT, tmp_path / "noise") for _ in range(2)]
    for process in both:
        code, out, err = finished(process)
        assert (code, err) == (0, "")
        assert out.split("\n")[-2] == "400"
    with open_store(backbone.facts) as store:
        assert len(store) == 400
        shared = extract(dataset, backbone, store=store)
        assert shared.computed == 0
        with open_store_in(tmp_path / "another", backbone) as alone:
            np.testing.assert_array_equal(shared.matrix(), extracted(dataset, backbone, alone))
    assert cache.is_dir()


@pytest.mark.slow
def test_a_full_disk_is_said_so_and_what_fitted_is_kept(
    tmp_path: Path, backbone: Backbone, cache: Path
) -> None:
    write_noise(tmp_path / "photos" / "a", 150)
    write_noise(tmp_path / "photos" / "b", 300)
    n_bytes = 4 * BATCH * backbone.facts.width * 2  # room for some batches, not for all
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))"
    options = (
        "train",
        tmp_path / "photos",
        "--out",
        tmp_path / "run",
        "--size",
        SIZE_PX,
        "--precision",
        "f32",
    )
    code, out, err = finished(start(*options, before=limit))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "writing failed" in err
    assert "MB more; free some space or set TOPWORK_CACHE to a folder on another disk" in err
    assert str(cache) in err
    with open_store(backbone.facts) as store:
        kept = len(store)
        assert kept >= BATCH
        assert extract(load(tmp_path / "photos"), backbone, store=store).computed <= 450 - kept


@pytest.mark.slow
def test_ctrl_c_leaves_a_good_store_and_says_how_to_go_on(
    tmp_path: Path, backbone: Backbone, cache: Path
) -> None:
    write_noise(tmp_path / "photos" / "a", 1000)
    write_shapes(tmp_path / "photos", 2, labels=("circle",))
    options = (
        "train",
        tmp_path / "photos",
        "--out",
        tmp_path / "run",
        "--size",
        SIZE_PX,
        "--precision",
        "f32",
    )
    process = start(*options)
    path = cache / "features" / f"{backbone.facts.fingerprint}.sqlite-wal"
    until = time.monotonic() + 60
    one_batch = BATCH * backbone.facts.width * 4
    while not (path.exists() and path.stat().st_size > one_batch):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert (code, out) == (130, "")
    assert (
        err == "topwork: stopped; computed features and downloads are kept: run the same command to resume\n"
    )
    with open_store(backbone.facts) as store:
        kept = len(store)
        assert store.set_aside is None
        assert 0 < kept < 1002
    code, out, err = finished(start(*options, "--head", "centroid", "--json"))
    assert code == 0
    assert err.startswith("test accuracy ")
    assert err.count("\n") == 1
    assert json.loads(out)["computed"] == 1002 - kept
