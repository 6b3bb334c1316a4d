"""Modules from the Hugging Face hub: huggingface_hub itself, against a server on this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_hub import REPO, Hub, hf_hub
from photos import finished, start_python
from topwork.backbones.hub import foreign
from topwork.backbones.hub.huggingface import choose, fetch_hf
from topwork.backbones.hub.record import DamagedModule
from topwork.errors import InputError, MissingExtra, TopworkError

constants = pytest.importorskip("huggingface_hub.constants")

GRAPH = {
    "saved_model.pb": b"graph" * 99,
    "variables/variables.index": b"index",
    "assets/words.txt": b"a\nb\n",
}


@pytest.fixture
def hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hf_hub(tmp_path, monkeypatch) as hub:
        yield hub


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_file_and_its_data_are_fetched_once(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch_hf(REPO)
    assert path == tmp_path / "hf/models--owner--net/snapshots" / ("a" * 40) / "net.onnx"
    assert content(path.parent) == hub.files  # its card, too, which states a licence
    assert sorted(hub.downloads()) == ["README.md", "net.onnx", "net.onnx_data"]
    asked = len(hub.asked)
    assert fetch_hf(REPO) == path
    assert fetch_hf(REPO, offline=True) == path
    assert len(hub.asked) == asked
    (kept,) = foreign.list_foreign()
    assert (kept.handle, kept.revision) == (f"hf:{REPO}", "a" * 40)
    assert capsys.readouterr().out == ""


def test_a_saved_model_is_its_folder(hub: Hub) -> None:
    hub.files = {**hub.files, **{f"tf/{name}": data for name, data in GRAPH.items()}, "tf/notes.txt": b"x"}
    path = fetch_hf(f"{REPO}/tf")
    assert content(path) == GRAPH
    assert fetch_hf(f"{REPO}/tf/saved_model.pb") == path
    hub.files = dict(GRAPH)
    hub.branches["main"] = "c" * 40
    whole = fetch_hf(f"{REPO}@main")
    assert content(whole) == GRAPH


def test_a_revision_is_taken_and_kept(hub: Hub) -> None:
    assert fetch_hf(f"{REPO}@v1/net.onnx").parent.name == "b" * 40
    path = fetch_hf(REPO)
    hub.branches["main"] = "c" * 40
    assert fetch_hf(REPO) == path  # as at the first fetch
    assert fetch_hf(f"{REPO}@{'c' * 40}").parent.name == "c" * 40


@pytest.mark.parametrize("name", ["net.onnx", "net.onnx_data"])
@pytest.mark.parametrize("harm", ["cut", "change", "delete"])
def test_a_damaged_module_is_never_used(hub: Hub, name: str, harm: str) -> None:
    path = fetch_hf(REPO)
    blob = (path.parent / name).resolve()
    data = blob.read_bytes()
    if harm == "delete":
        blob.unlink()
    else:
        blob.write_bytes(data[:-1] if harm == "cut" else b"?" + data[1:])
    reason = {
        "cut": "has 1,999 bytes, and had 2,000",
        "change": "changed since it was fetched",
        "delete": "is missing",
    }
    with pytest.raises(DamagedModule, match=re.escape(f"{name} {reason[harm]}")) as refused:
        fetch_hf(REPO, offline=True)
    assert f"when online: topwork modules pull hf:{REPO}" in str(refused.value)
    hub.branches["main"] = "c" * 40
    hub.branches["v0"] = "a" * 40
    assert fetch_hf(REPO) == path  # the revision that was damaged
    assert (path.parent / name).read_bytes() == data


def test_what_another_program_fetched_is_held_to_the_hubs_checksum(hub: Hub) -> None:
    path = fetch_hf(REPO)
    (kept,) = foreign.list_foreign()
    foreign.forget(kept)
    path.resolve().write_bytes(b"?" * 2000)
    assert fetch_hf(REPO).read_bytes() == hub.files["net.onnx"]


def test_what_came_otherwise_than_the_hub_says(hub: Hub) -> None:
    hub.lies = True
    with pytest.raises(
        DamagedModule, match=r"net.onnx came damaged: the hub states another SHA-256; try again"
    ):
        fetch_hf(REPO)
    hub.lies = False
    assert fetch_hf(REPO).read_bytes() == hub.files["net.onnx"]


def test_a_download_that_breaks_off_leaves_nothing_to_trust(hub: Hub) -> None:
    hub.cut = 3
    with pytest.raises(TopworkError, match=re.escape(f"hf:{REPO} can't be fetched: ")):
        fetch_hf(REPO)
    with pytest.raises(InputError, match=r"is not kept in "):
        fetch_hf(REPO, offline=True)
    hub.cut = None
    assert fetch_hf(REPO).read_bytes() == hub.files["net.onnx"]


def test_the_same_revision_with_other_files_is_refused(hub: Hub) -> None:
    fetch_hf(REPO).resolve().unlink()
    hub.files["net.onnx"] = b"exchanged"
    message = f"revision {'a' * 40} was fetched again, and its files are not those that first came (net.onnx). If you"
    with pytest.raises(DamagedModule, match=re.escape(message)):
        fetch_hf(REPO)


@pytest.mark.parametrize("way", ["argument", "environment", "constant"])
def test_offline(hub: Hub, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch_hf(REPO)
    (kept,) = foreign.list_foreign()
    asked = len(hub.asked)
    if way == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    elif way == "constant":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = way == "argument"
    assert fetch_hf(REPO, offline=offline) == path
    foreign.forget(kept)
    commit = "a" * 40
    assert fetch_hf(f"{REPO}@{commit}", offline=offline) == path  # found in huggingface_hub's cache
    for name in ("owner/other", f"{REPO}@v1", f"{REPO}/other.onnx"):
        message = f"hf:{name} is not kept in {tmp_path}/hf, and nothing is fetched offline. Fetch it once "
        with pytest.raises(InputError, match=re.escape(message)):
            fetch_hf(name, offline=offline)
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net", "expected hf:OWNER/REPO[@REVISION][/FILE]; got 'hf:net'"),
        (
            "owner/none",
            "Hugging Face has no model repository 'owner/none', or it is private: expected hf:OWNER/REPO as",
        ),
        (f"{REPO}@v2", f"{REPO} on Hugging Face has no revision 'v2': name a branch, a tag or a commit"),
        (
            f"{REPO}/nett.onnx",
            f"hf:{REPO}/nett.onnx: unknown file 'nett.onnx'; did you mean 'net.onnx'? Known: ",
        ),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        fetch_hf(name)


def test_what_needs_a_token(hub: Hub) -> None:
    hub.gated = True
    with pytest.raises(
        InputError, match=r"only to users who signed in and agreed to its terms: .* HF_TOKEN, or run: hf"
    ):
        fetch_hf(REPO)


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TopworkError, match=re.escape(f"hf:{REPO} can't be fetched: ")) as told:
        fetch_hf(REPO)
    assert "\n" not in str(told.value)


def test_two_processes_fetch_it_once(hub: Hub) -> None:
    code = "import sys\nfrom topwork.backbones.hub.huggingface import fetch_hf\nprint(fetch_hf(sys.argv[1]))"
    both = [start_python(code, REPO) for _ in range(2)]
    told = [finished(process) for process in both]
    assert [status for status, _, _ in told] == [0, 0], told
    assert told[0][1] == told[1][1]
    assert sorted(hub.downloads()) == ["README.md", "net.onnx", "net.onnx_data"]


NAMES = [
    "README.md",
    "onnx/a.onnx",
    "onnx/a.onnx_data",
    "ir/a.xml",
    "ir/a.bin",
    "other.xml",
    "x.keras",
    "x.tflite",
]


HUB_NAMES = [
    *(
        "config.json",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/model_fp16.onnx",
        "preprocessor_config.json",
    ),
]
SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]


@pytest.mark.parametrize(
    ("names", "file", "module", "files"),
    [
        (NAMES, "onnx/a.onnx", "onnx/a.onnx", ("README.md", "onnx/a.onnx", "onnx/a.onnx_data")),
        (NAMES, "ir/a.xml", "ir/a.xml", ("ir/a.bin", "ir/a.xml")),
        (NAMES, "x.keras", "x.keras", ("README.md", "x.keras")),
        (["other.xml", "x.tflite"], None, "x.tflite", ("x.tflite",)),
        (
            HUB_NAMES,
            None,
            "model.safetensors",
            ("config.json", "model.safetensors", "preprocessor_config.json"),
        ),
        (HUB_NAMES, "onnx/model.onnx", "onnx/model.onnx", (*HUB_NAMES[:1], "onnx/model.onnx", HUB_NAMES[-1])),
        (["a.index.json", *SHARDS], None, "model.safetensors.index.json", tuple(sorted(SHARDS))),
        ([*GRAPH, "keras_metadata.pb", "a.txt"], None, "", (*sorted([*GRAPH, "keras_metadata.pb"]),)),
        (
            ["a/saved_model.pb", "a/variables/v", "b/variables/v"],
            "a/",
            "a",
            ("a/saved_model.pb", "a/variables/v"),
        ),
    ],
)
def test_which_files_make_a_module(
    names: list[str], file: str | None, module: str, files: tuple[str, ...]
) -> None:
    assert choose(names, file, "hf:x/y") == (module, files)


def test_weights_of_a_kind_that_is_not_built_here_give_way_to_the_graph() -> None:
    assert choose(HUB_NAMES, None, "hf:x/y", built=False)[0] == "onnx/model.onnx"
    assert choose(HUB_NAMES, None, "hf:x/y", built=True)[0] == "model.safetensors"
    assert choose(["model.safetensors", "net.onnx"], None, "hf:x/y", built=False)[0] == "net.onnx"
    towers = ["onnx/text_model.onnx", "onnx/vision_model.onnx", "model.safetensors"]
    assert choose(towers, None, "hf:x/y", built=False)[0] == "onnx/vision_model.onnx"


def test_a_choice_that_is_the_users() -> None:
    message = "hf:x/y holds several modules: name one of ir/a.xml, onnx/a.onnx, x.keras, x.tflite"
    with pytest.raises(InputError, match=re.escape(message)):
        choose(NAMES, None, "hf:x/y")
    message = (
        "hf:x/y: expected a module, saved_model.pb or a file that ends in .xml, .onnx, .tflite, .keras, "
        ".safetensors; the repository holds 0.bin, 1.bin, 2.bin, 3.bin, 4.bin, 5.bin, 6.bin, 7.bin and 1 more"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        choose([f"{n}.bin" for n in range(9)], None, "hf:x/y")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = 'the module hf:owner/net needs an optional part: pip install "topwork[hf]"'
    with pytest.raises(MissingExtra, match=re.escape(message)):
        fetch_hf("owner/net")
