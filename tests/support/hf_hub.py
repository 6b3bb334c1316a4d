"""The Hugging Face hub as a server on this machine: repositories, and what is wrong with the server."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from hub_server import Answer, Request, serving

REPO = "owner/net"
LARGE = 1000  # from this many bytes on, the hub tells a file's SHA-256


class Hub:
    """Repositories and what is wrong with the server."""

    def __init__(self) -> None:
        self.files = {"net.onnx": b"onnx" * 500, "net.onnx_data": b"more" * 500, "README.md": b"# Net"}
        self.branches = {"main": "a" * 40, "v1": "b" * 40}
        self.gated = False
        self.lies = False
        self.cut: int | None = None
        self.asked: list[Request] = []
        self.address = ""

    def answer(self, request: Request) -> Answer:
        path = unquote(urlsplit(request.path).path)
        if found := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            return self.tell(*found.groups())
        found = re.fullmatch(r"/(.+?/.+?)/resolve/(.+?)/(.+)", path)
        assert found, path
        repo, revision, name = found.groups()
        if repo != REPO:
            return told("RepoNotFound", 404)
        if self.gated:
            return told("GatedRepo", 403)
        if name not in self.files:
            return told("EntryNotFound", 404)
        data = self.files[name]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.branches.get(revision, revision)}
        return Answer(bytes(len(data)) if self.lies else data, headers=headers, cut=self.cut)

    def tell(self, repo: str, revision: str | None) -> Answer:
        if repo != REPO:
            return told("RepoNotFound", 404)
        commit = self.branches.get(revision or "main", revision)
        if commit not in self.branches.values():
            return told("RevisionNotFound", 404)
        siblings = []
        for name, data in self.files.items():
            sibling = {"rfilename": name, "size": len(data)}
            if len(data) >= LARGE:
                digest = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"size": len(data), "sha256": digest, "pointerSize": 130}
            siblings.append(sibling)
        body = json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        return Answer(body, headers={"Content-Type": "application/json"})

    def downloads(self) -> list[str]:
        return [
            r.path.partition(f"/{'a' * 40}/")[2]
            for r in self.asked
            if r.method == "GET" and "/resolve/" in r.path
        ]


def told(code: str, status: int) -> Answer:
    return Answer(b"{}", status, {"X-Error-Code": code, "X-Error-Message": "no"})


@contextmanager
def hf_hub(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """huggingface_hub asks this hub, and keeps its cache in `folder`."""
    constants = pytest.importorskip("huggingface_hub.constants")
    patch.setenv("HF_HUB_CACHE", str(folder / "hf"))
    patch.setenv("HF_TOKEN_PATH", str(folder / "no-token"))
    patch.delenv("HF_HUB_OFFLINE", raising=False)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    hub = Hub()
    with serving(hub.answer) as (hub.address, hub.asked):
        patch.setenv("HF_ENDPOINT", hub.address)
        yield hub
