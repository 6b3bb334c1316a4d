"""`hf:OWNER/REPO[@REVISION][/FILE]`: modules fetched by huggingface_hub, into its own cache.

huggingface_hub resumes, shows progress and compares lengths; the SHA-256 that the hub states for large files is
compared here, and `foreign` verifies the files at each use. HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE
are honoured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from topwork.backbones.hub.foreign import Found, keep, one_line
from topwork.backbones.hub.handle import USUAL
from topwork.backbones.hub.record import DamagedModule, files_below, sha256_of
from topwork.errors import InputError, MissingExtra, TopworkError, one_of

SUFFIXES = (".xml", ".onnx", ".tflite", ".keras", ".safetensors")
INDEX = ".safetensors.index.json"
# What states a module's preprocessing, settings and licence.
BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json", "README.md")
SAVED_MODEL, CONFIG = "saved_model.pb", "config.json"
# What belongs to a SavedModel besides its graph.
_PARTS = ("variables/", "assets/", "assets.extra/", "fingerprint.pb", "keras_metadata.pb")
_NAME = re.compile(r"(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.+))?")


def fetch_hf(name: str, *, offline: bool = False) -> Path:
    """The folder (a SavedModel) or file of a module in a repository of the Hugging Face hub.

    Fetched once, with the files that belong to it (an .xml's .bin, an .onnx's data), verified at each use.

    Args:
        name: `owner/repo[@revision][/file]`. Without a revision, the main branch as it is at the first fetch is
            used from then on. Without a file, the only module in the repository. A SavedModel is named by its
            folder.
        offline: use only what is in huggingface_hub's cache; HF_HUB_OFFLINE does the same.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        InputError: no such repository, revision or file; it requires a token; it holds several modules and none is
            named; offline and not cached.
        DamagedModule: offline and damaged, or its files are not those that first came, or that the hub states.
        TopworkError: it can't be fetched.

    Follows https://huggingface.co/docs/huggingface_hub/guides/download
    """
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        raise MissingExtra(f"the module hf:{name}", "hf") from None

    parts = _NAME.fullmatch(name)
    if parts is None:
        raise InputError(f"expected hf:OWNER/REPO[@REVISION][/FILE]; got 'hf:{name}'")
    # Read now: huggingface_hub itself reads its variables once, when it is first imported.
    cache = Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE).expanduser()
    told = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    repo, revision, file = parts["repo"], parts["revision"], parts["file"]
    return keep(
        f"hf:{name}",
        cache,
        offline=offline or told or bool(constants.HF_HUB_OFFLINE),
        find=lambda: _find(cache, repo, revision or "main", file, name),
        fetch=lambda damaged: _fetch(cache, repo, damaged or revision, file, name, again=damaged is not None),
    )


def choose(
    names: Sequence[str], file: str | None, shown: str, *, built: bool | None = None
) -> tuple[str, tuple[str, ...]]:
    """The module among a repository's files (a file, or a SavedModel's folder, "" at the top), and all its files.

    Of several, where none is named: `USUAL`; weights alone only if a network of their kind can be `built` here.

    Raises `InputError` if there is none, none of that name, or several and none is named.
    """
    modules = {str(PurePosixPath(n).parent): n for n in names if PurePosixPath(n).name == SAVED_MODEL}
    modules = {"" if folder == "." else folder: n for folder, n in modules.items()}
    for n in names:
        path = PurePosixPath(n)
        suffix = path.suffix.lower()
        if n.endswith(INDEX) or (
            suffix in SUFFIXES
            and (suffix != ".xml" or str(path.with_suffix(".bin")) in names)
            and not re.search(r"-\d+-of-\d+\.safetensors$", n)  # a part, which the index names
        ):
            modules[n] = n
    if file is None:
        graphs = {m: n for m, n in modules.items() if ".safetensors" not in m}
        modules = graphs if built is False and graphs else modules
        if not modules:
            raise InputError(
                f"{shown}: expected a module, {SAVED_MODEL} or a file that ends in {', '.join(SUFFIXES)}; the "
                f"repository holds {_some(names)}"
            )
        usual = [n for n in USUAL if n in modules]
        if len(modules) > 1 and not usual:
            raise InputError(
                f"{shown} holds several modules: name one of {', '.join(sorted(modules.values()))}"
            )
        wanted = usual[0] if usual and len(modules) > 1 else next(iter(modules))
    else:
        asked = file.rstrip("/")
        wanted = next((m for m, n in modules.items() if asked in (m, n)), asked)
        if wanted not in modules:
            known = sorted(modules.values()) or sorted(names)
            raise InputError(f"{shown}: {one_of(file, known, what='file')}")
    return wanted, tuple(sorted(n for n in names if _belongs(n, wanted, modules[wanted])))


def _belongs(name: str, module: str, main: str) -> bool:
    if PurePosixPath(main).name == SAVED_MODEL:
        inside = name.removeprefix(f"{module}/" if module else "")
        return name == main or (inside.startswith(_PARTS) and (not module or name.startswith(f"{module}/")))
    if main.endswith(".xml"):
        return name in (main, str(PurePosixPath(main).with_suffix(".bin")))
    path, folder = PurePosixPath(name), PurePosixPath(main).parent
    if path.name in BESIDE and path.parent in (folder, *([folder.parent] if folder.name == "onnx" else [])):
        return True
    if main.endswith(INDEX):
        return name == main or (
            path.suffix == ".safetensors" and path.parent == folder and "-of-" in path.name
        )
    return name == main or (main.endswith(".onnx") and name.startswith((f"{main}_data", f"{main}.data")))


def _find(cache: Path, repo: str, revision: str, file: str | None, name: str) -> Found | None:
    """The module in huggingface_hub's cache, without the network."""
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(repo, revision=revision, cache_dir=cache, local_files_only=True))
        there = [one for one in files_below(snapshot) if (snapshot / one).is_file()]  # links may be broken
        config = snapshot / CONFIG
        built = config.is_file() and _can_be_built(config)
        module, names = choose(there, file, f"hf:{name}", built=built)
    except (OSError, InputError):
        return None
    return Found(snapshot / module, snapshot, names, snapshot.name)


def _fetch(
    cache: Path, repo: str, revision: str | None, file: str | None, name: str, *, again: bool
) -> Found:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)

    try:
        info = api.model_info(repo, revision=revision, files_metadata=True)
        commit = str(info.sha)
        digests = {sibling.rfilename: _digest(sibling) for sibling in info.siblings or ()}
        where: dict[str, Any] = {"revision": commit, "cache_dir": cache}
        built = False
        if file is None and CONFIG in digests:
            built = _can_be_built(Path(api.hf_hub_download(repo, CONFIG, **where)))
        module, chosen = choose(tuple(digests), file, f"hf:{name}", built=built)
        for one in chosen:
            for force in (
                again,
                True,
            ):  # another program may have fetched it, and it may have been damaged since
                path = Path(api.hf_hub_download(repo, one, force_download=force, **where))
                if digests[one] in (None, sha256_of(path)):
                    break
            else:
                raise DamagedModule(
                    f"hf:{name}: {one} came damaged: the hub states another SHA-256; try again"
                )
    except TopworkError:
        raise
    except Exception as error:
        raise _explained(error, repo, revision, name) from error
    snapshot = path.parents[len(PurePosixPath(one).parts) - 1]
    return Found(snapshot / module, snapshot, chosen, commit)


def _can_be_built(config: Path) -> bool:
    """Whether a network of the kind that a `config.json` names is built here."""
    from topwork.backbones.weights.build import read_config
    from topwork.backbones.weights.configs import plan_of

    try:
        plan_of(read_config(config, shown=str(config)), shown=str(config))
    except InputError:
        return False
    return True


def _digest(sibling: Any) -> str | None:
    """The SHA-256 that the hub states for a large file; it states none for small ones."""
    lfs = sibling.lfs
    found = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return str(found) if found else None


def _explained(error: Exception, repo: str, revision: str | None, name: str) -> TopworkError:
    from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return InputError(
            f"Hugging Face gives hf:{name} only to users who signed in and agreed to its terms: agree on the page of "
            f"{repo}, and set HF_TOKEN, or run: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(
            f"{repo} on Hugging Face has no revision {revision!r}: name a branch, a tag or a commit"
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"Hugging Face has no model repository {repo!r}, or it is private: expected hf:OWNER/REPO as its page "
            "shows it; for a private one set HF_TOKEN"
        )
    return TopworkError(f"hf:{name} can't be fetched: {one_line(error)}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:8])
    return (f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown) or "no files"
