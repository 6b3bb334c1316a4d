"""Modules from Kaggle: kagglehub itself, against a server on this machine that speaks the three calls it makes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Answer, Request, serving
from photos import finished, start_python
from topwork.backbones.hub import foreign
from topwork.backbones.hub.kaggle import fetch_kaggle
from topwork.backbones.hub.record import DamagedModule
from topwork.errors import InputError, MissingExtra, TopworkError

kagglehub = pytest.importorskip("kagglehub")
from kagglesdk import kaggle_env  # noqa: E402

VARIATION = "owner/net/tensorFlow2/small"
FILES = {
    "saved_model.pb": b"graph" * 100,
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": bytes(range(256)) * 64,
}


class Kaggle:
    """The models that the server has, and what it does wrong."""

    def __init__(self) -> None:
        self.versions = {1: FILES, 2: {**FILES, "saved_model.pb": b"newer" * 100}}
        self.status = 200
        self.cut: int | None = None  # break off each file after so many bytes
        self.lies = False  # send other bytes than the MD5 says
        self.asked: list[Request] = []
        self.address = ""

    def answer(self, request: Request) -> Answer:
        call, told = request.path.rpartition("/")[2], json.loads(request.body or b"{}")
        assert request.path == f"/v1/models.ModelApiService/{call}"
        if self.status != 200:
            return as_json({"code": self.status, "message": "no"}, self.status)
        names = [told.get(key) for key in ("ownerSlug", "modelSlug", "instanceSlug")]
        if names != ["owner", "net", "small"] or told.get("versionNumber", 1) not in self.versions:
            return as_json({"code": 404, "message": "Not found"}, 404)
        if call == "GetModelInstance":
            return as_json({"versionNumber": max(self.versions)})
        files = self.versions[told["versionNumber"]]
        if call == "ListModelInstanceVersionFiles":
            return as_json({"files": [{"name": name} for name in files], "nextPageToken": ""})
        assert call == "DownloadModelInstanceVersion"
        data = files[told["path"]]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        sent = bytes(len(data)) if self.lies else data
        return Answer(sent, headers={"x-goog-hash": f"md5={md5}"}, cut=self.cut)

    def downloads(self) -> int:
        return sum(request.path.endswith("DownloadModelInstanceVersion") for request in self.asked)


def as_json(value: object, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


@pytest.fixture
def kaggle(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    for name in [n for n in os.environ if n.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no credentials
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    kaggle = Kaggle()
    with serving(kaggle.answer) as (kaggle.address, kaggle.asked):
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, kaggle.address)
        yield kaggle


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_module_is_fetched_once_into_kagglehubs_cache(
    kaggle: Kaggle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch_kaggle(f"{VARIATION}/1")
    assert path == tmp_path / "kagglehub/models" / VARIATION / "1"
    assert content(path) == FILES
    asked = len(kaggle.asked)
    assert fetch_kaggle(f"{VARIATION}/1") == path
    assert fetch_kaggle(f"{VARIATION}/1", offline=True) == path
    assert len(kaggle.asked) == asked
    assert capsys.readouterr().out == ""  # where --json prints


def test_what_is_recorded(kaggle: Kaggle, cache: Path) -> None:
    path = fetch_kaggle(f"{VARIATION}/1")
    (kept,) = foreign.list_foreign()
    assert (kept.handle, kept.module, kept.root, kept.revision) == (f"kaggle:{VARIATION}/1", path, path, "1")
    assert {f.name: (f.size_bytes, f.sha256) for f in kept.files} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()
    }
    assert kept.record.parent == cache / "modules-foreign"
    foreign.forget(kept)
    assert foreign.list_foreign() == []
    assert fetch_kaggle(f"{VARIATION}/1", offline=True) == path  # found in kagglehub's cache


def test_without_a_version_the_newest_is_kept(kaggle: Kaggle) -> None:
    path = fetch_kaggle(VARIATION)
    assert path.name == "2"
    kaggle.versions[3] = FILES
    assert fetch_kaggle(VARIATION) == path
    assert fetch_kaggle(f"{VARIATION}/3").name == "3"
    assert fetch_kaggle(VARIATION, offline=True) == path


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "saved_model.pb has 499 bytes, and had 500"),
        (
            lambda p: p.write_bytes(b"Graph" + p.read_bytes()[5:]),
            "saved_model.pb changed since it was fetched: its SHA",
        ),
        (lambda p: p.unlink(), "saved_model.pb is missing"),
    ],
)
def test_a_damaged_module_is_never_used(kaggle: Kaggle, harm, told: str) -> None:
    path = fetch_kaggle(VARIATION)
    before = content(path)
    harm(path / "saved_model.pb")
    with pytest.raises(DamagedModule, match=re.escape(told)) as refused:
        fetch_kaggle(VARIATION, offline=True)
    assert f"when online: topwork modules pull kaggle:{VARIATION}" in str(refused.value)
    kaggle.versions[3] = FILES
    assert fetch_kaggle(VARIATION) == path  # the version that was damaged, not the newest
    assert content(path) == before


def test_an_emptied_cache_is_filled_again(kaggle: Kaggle) -> None:
    path = fetch_kaggle(f"{VARIATION}/1")
    shutil.rmtree(path)
    assert content(fetch_kaggle(f"{VARIATION}/1")) == FILES
    shutil.rmtree(path)
    path.mkdir()  # kagglehub's mark is there, and its folder: it would give an empty module
    (kept,) = foreign.list_foreign()
    foreign.forget(kept)
    with pytest.raises(InputError, match=r"is not kept in .*, and nothing is fetched offline"):
        fetch_kaggle(f"{VARIATION}/1", offline=True)
    assert content(fetch_kaggle(f"{VARIATION}/1")) == FILES


def test_the_same_version_with_other_files_is_refused(kaggle: Kaggle) -> None:
    path = fetch_kaggle(f"{VARIATION}/1")
    (path / "saved_model.pb").unlink()
    kaggle.versions[1] = {**FILES, "saved_model.pb": b"exchanged"}
    message = (
        "revision 1 was fetched again, and its files are not those that first came (saved_model.pb). If you"
    )
    with pytest.raises(DamagedModule, match=re.escape(message)):
        fetch_kaggle(f"{VARIATION}/1")
    with pytest.raises(DamagedModule):
        fetch_kaggle(f"{VARIATION}/1", offline=True)


@pytest.mark.parametrize("fault", ["cut", "lies"])
def test_a_download_that_fails_leaves_nothing_to_trust(kaggle: Kaggle, fault: str) -> None:
    setattr(kaggle, fault, 3 if fault == "cut" else True)
    with pytest.raises(TopworkError, match=re.escape(f"kaggle:{VARIATION}/1 can't be fetched: ")) as told:
        fetch_kaggle(f"{VARIATION}/1")
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"is not kept in "):
        fetch_kaggle(f"{VARIATION}/1", offline=True)
    setattr(kaggle, fault, None)
    assert content(fetch_kaggle(f"{VARIATION}/1")) == FILES


def test_no_network(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    with pytest.raises(TopworkError, match=re.escape(f"kaggle:{VARIATION} can't be fetched: ")):
        fetch_kaggle(VARIATION)


def test_offline_takes_what_kagglehub_marked_as_complete(kaggle: Kaggle, tmp_path: Path) -> None:
    for version in ("1", "10", "9"):
        folder = tmp_path / "kagglehub/models" / VARIATION / version
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    message = f"kaggle:{VARIATION} is not kept in {tmp_path}/kagglehub, and nothing is fetched offline. Fetch it once"
    with pytest.raises(InputError, match=re.escape(message)):
        fetch_kaggle(VARIATION, offline=True)
    (folder.parent / "9.complete").touch()
    (folder.parent / "10.complete").touch()
    assert fetch_kaggle(VARIATION, offline=True).name == "10"
    assert fetch_kaggle(f"{VARIATION}/9", offline=True).name == "9"
    with pytest.raises(InputError, match=r"is not kept in "):
        fetch_kaggle(f"{VARIATION}/1", offline=True)
    assert kaggle.asked == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/net", "expected kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; got 'kaggle:owner/net'"),
        (
            f"{VARIATION}/new",
            f"expected kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; got 'kaggle:{VARIATION}/new'",
        ),
        (
            "owner/nett/tensorFlow2/small",
            "Kaggle has no kaggle:owner/nett/tensorFlow2/small: expected OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION] "
            "as the model's page shows it, https://www.kaggle.com/models/owner/nett",
        ),
        (f"{VARIATION}/7", f"Kaggle has no kaggle:{VARIATION}/7: "),
    ],
)
def test_what_kaggle_does_not_have(kaggle: Kaggle, name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        fetch_kaggle(name)


def test_what_needs_signing_in(kaggle: Kaggle) -> None:
    kaggle.status = 403
    with pytest.raises(
        InputError, match=r"only to users who signed in and agreed to its terms: .* KAGGLE_API_TOKEN"
    ):
        fetch_kaggle(f"{VARIATION}/1")


def test_a_variation_that_is_no_module(kaggle: Kaggle) -> None:
    kaggle.versions[1] = {"readme.md": b"x"}
    message = f"kaggle:{VARIATION}/1: expected a module: "
    with pytest.raises(InputError, match=re.escape(message)):
        fetch_kaggle(f"{VARIATION}/1")


def test_two_processes_fetch_it_once(kaggle: Kaggle) -> None:
    code = (
        "import sys\nfrom kagglesdk import kaggle_env as env\n"
        "env._env_to_endpoint[env.KaggleEnv.PROD] = sys.argv[1]\n"
        "from topwork.backbones.hub.kaggle import fetch_kaggle\nprint(fetch_kaggle(sys.argv[2]))"
    )
    both = [start_python(code, kaggle.address, f"{VARIATION}/1") for _ in range(2)]
    told = [finished(process) for process in both]
    assert [status for status, _, _ in told] == [0, 0], told
    assert told[0][1] == told[1][1]
    assert kaggle.downloads() == len(FILES)


def test_a_record_that_cannot_be_read_is_made_anew(kaggle: Kaggle) -> None:
    path = fetch_kaggle(f"{VARIATION}/1")
    (kept,) = foreign.list_foreign()
    for text in ("", "{}", "[1]", '{"format": 9}'):
        kept.record.write_text(text)
        assert fetch_kaggle(f"{VARIATION}/1") == path
        assert foreign.list_foreign() == [kept]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    monkeypatch.setitem(sys.modules, "kagglehub.config", None)
    message = f'the module kaggle:{VARIATION} needs an optional part: pip install "topwork[kaggle]"'
    with pytest.raises(MissingExtra, match=re.escape(message)):
        fetch_kaggle(VARIATION)
