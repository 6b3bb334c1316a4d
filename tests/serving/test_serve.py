"""`topwork serve`: real processes, real sockets, what they answer, and how they end."""

from __future__ import annotations

import base64
import io
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from photos import SIZE_PX, Topwork, one_line
from serving import Server, pictures, serving
from topwork.classifiers.neighbours import NEIGHBOURS, load_neighbours
from topwork.images.decode import decode
from topwork.jobs.train import Run


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Server]:
    with serving(f"shapes={run.path}") as found:
        yield found


@pytest.fixture(scope="module")
def files(fresh: Path) -> list[bytes]:
    return [path.read_bytes() for path in pictures(fresh)]


def test_a_picture_gets_the_classifiers_own_answer(server: Server, run: Run, fresh: Path) -> None:
    expected = list(run.classifier.predict(str(fresh)))
    with server.client() as client:
        for path, own in zip(pictures(fresh), expected, strict=True):
            assert own.image == str(path)
            told = client.post("/v1/predict", content=path.read_bytes(), params={"top": 3}).json()
            (answer,) = told["predictions"]
            name, probability = own.top()[0]
            assert (told["model"], answer["class"], answer["rejected"]) == ("shapes", name, own.rejected)
            assert answer["probability"] == pytest.approx(probability, abs=1e-6)
            assert answer["novelty"] == pytest.approx(own.novelty, abs=1e-3)
            assert [t["class"] for t in answer["top"]] == [c for c, _ in own.top(3)]


def test_several_pictures_the_bad_ones_among_them(server: Server, files: list[bytes]) -> None:
    form = [
        ("a", ("../../x.png", files[0])),
        ("b", ("b.txt", b"no picture")),
        ("c", ("c.png", files[1][:60])),
    ]
    with server.client() as client:
        response = client.post("/v1/predict", files=form, params={"coverage": 0.9})
        answers = response.json()["predictions"]
        assert response.status_code == 200
        assert [a["image"] for a in answers] == [0, 1, 2]
        assert answers[0]["class"] in answers[0]["set"]
        assert [a["error"]["code"] for a in answers[1:]] == ["unreadable_image"] * 2
        response = client.post("/v1/predict", content=b"no picture at all")
        assert (response.status_code, response.json()["error"]["code"]) == (422, "unreadable_image")


def test_where_it_looked_and_what_is_near(server: Server, run: Run, files: list[bytes]) -> None:
    with server.client() as client:
        (told,) = client.get("/v1/models").json()["models"]
        explains = told["explains"]
        assert "neighbours" in explains
        assert told["test"]["images"] == run.test.n if run.test else True
        (answer,) = client.post(
            "/v1/predict", content=files[0], params={"explain": ",".join(explains)}
        ).json()["predictions"]
    near = answer["neighbours"]
    assert [n["similarity"] for n in near] == sorted((n["similarity"] for n in near), reverse=True)
    head, _, data = near[0]["thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 128
    if "map" in explains:
        assert Image.open(io.BytesIO(base64.b64decode(answer["map"].partition(",")[2]))).size == (
            SIZE_PX,
            SIZE_PX,
        )


def test_a_training_picture_is_nearest_to_itself(run: Run, shapes: Path) -> None:
    from topwork.backbones.engine import Engine

    found = load_neighbours(run.path)
    assert found is not None
    infer = Engine(run.classifier.backbone)
    nearest = [
        found.nearest(infer(decode(path.read_bytes(), SIZE_PX)), 1)[0]
        for path in pictures(shapes)
        if path.is_file()
    ]
    labels = [path.parent.name for path in pictures(shapes)]
    same = [
        near.label == label for near, label in zip(nearest, labels, strict=True) if near.similarity > 0.999
    ]
    assert len(same) > 30  # the training pictures
    assert all(same)


def test_the_open_inference_protocol(server: Server, run: Run, files: list[bytes]) -> None:
    pixels = np.stack([decode(data, SIZE_PX) for data in files[:3]])
    as_pixels = {
        "name": "image",
        "datatype": "UINT8",
        "shape": list(pixels.shape),
        "data": pixels.ravel().tolist(),
    }
    texts = [base64.b64encode(data).decode() for data in files[:3]]
    as_files = {"name": "bytes", "datatype": "BYTES", "shape": [3], "data": texts}
    with server.client() as client:
        assert client.get("/v2").json()["name"] == "topwork"
        assert client.get("/v2/health/ready").json() == {"ready": True}
        about = client.get("/v2/models/shapes").json()
        assert about["inputs"][0]["shape"] == [-1, SIZE_PX, SIZE_PX, 3]
        for tensor in (as_pixels, as_files):
            told = client.post("/v2/models/shapes/infer", json={"id": "7", "inputs": [tensor]}).json()
            outputs = {o["name"]: o for o in told["outputs"]}
            assert told["id"] == "7"
            assert outputs["probabilities"]["shape"] == [3, 3]
            names = [
                run.classifier.classes[i]
                for i in np.reshape(outputs["probabilities"]["data"], (3, 3)).argmax(1)
            ]
            assert outputs["class"]["data"] == names
        version = client.get("/v2/models/shapes").json()["versions"][0]
        assert client.get(f"/v2/models/shapes/versions/{version}/ready").json() == {
            "name": "shapes",
            "ready": True,
        }
        assert client.get("/v2/models/shapes/versions/0/ready").status_code == 404
        one = {"inputs": [as_files], "outputs": [{"name": "class"}]}
        (output,) = client.post(f"/v2/models/shapes/versions/{version}/infer", json=one).json()["outputs"]
        assert output == {"name": "class", "datatype": "BYTES", "shape": [3], "data": names}
        wrong_tensors = (
            as_pixels | {"data": [1, 2]},
            as_pixels | {"name": "x"},
            as_files | {"shape": [2]},
            as_files | {"data": ["%%"] * 3},
        )
        wrong_outputs = ([{"name": "x"}], [{}], "class", [["class"]])
        for wrong in (
            {},
            {"inputs": []},
            *({"inputs": [tensor]} for tensor in wrong_tensors),
            *({"inputs": [as_files], "outputs": outputs} for outputs in wrong_outputs),
        ):
            response = client.post("/v2/models/shapes/infer", json=wrong)
            assert response.status_code == 400
            assert isinstance(response.json()["error"], str)
        assert client.get("/v2/models/other").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/predict", 405, "method_not_allowed"),
        ("GET", "/v1/models/shape", 404, "unknown_model"),
        ("POST", "/v1/predict", 400, "no_picture"),
        ("POST", "/v1/predict?model=..%2F..%2Fetc", 404, "unknown_model"),
        ("POST", "/v1/predict?top=x", 400, "bad_request"),
        ("POST", "/v1/predict?explain=all", 400, "bad_request"),
        ("POST", "/v1/predict?coverage=7", 400, "bad_request"),
    ],
)
def test_what_is_wrong_is_said(server: Server, method: str, path: str, status: int, code: str) -> None:
    with server.client() as client:
        response = client.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_the_description_and_the_figures(server: Server, files: list[bytes]) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/v1/predict", "/v1/models", "/healthz", "/v2/models/{name}/infer"} <= set(paths)
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 200
        client.post("/v1/predict", content=files[0])
        client.get("/v2/models/shapes/ready")
        client.get("/nowhere")
        text = client.get("/metrics").text
        assert 'topwork_requests_total{route="/v1/predict",status="200"}' in text
        assert 'topwork_requests_total{route="/v2/models/{name}/ready",status="200"}' in text
        assert 'topwork_requests_total{route="other",status="404"}' in text
        assert "topwork_request_seconds_bucket" in text
        page = client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        for name in ("page.js", "page.css"):
            assert name in page.text
            assert client.get(f"/{name}").status_code == 200
        assert (
            client.get("/v1/models", headers={"Host": "elsewhere.example"}).json()["error"]["code"]
            == "bad_host"
        )


@pytest.mark.slow
def test_limits_and_the_token(run: Run, files: list[bytes]) -> None:
    options = ("--max-bytes", 20_000, "--max-pixels", 10_000, "--timeout", 1)
    with serving(run.path, *options, token="secret") as server:
        with server.client() as client:
            for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
                assert client.get(path).status_code == 200
            assert client.get("/v2").status_code == 401
            response = client.post("/v1/predict", content=files[0])
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert "Authorization: Bearer TOKEN" in client.get("/v2/models/shapes").json()["error"]
        with server.client(headers={"Authorization": "Bearer secret"}) as client:
            assert client.post("/v1/predict", content=files[0]).status_code == 200
            response = client.post("/v1/predict", content=b"x" * 20_001)
            assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
            response = client.post(
                "/v1/predict", content=(b"x" * 1000 for _ in range(40))
            )  # chunked: no length told
            assert response.status_code == 413
            big = io.BytesIO()
            Image.new("RGB", (101, 100)).save(big, "PNG")
            assert "10,000" in client.post("/v1/predict", content=big.getvalue()).json()["error"]["message"]
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
        began = time.monotonic()
        assert b" 408 " in server.raw(head + b"Content-Length: 100\r\n\r\nabc", wait=60)
        assert server.raw(b"GET /healthz HTTP/1.1\r\nHost: loc", wait=60) == b""  # a head that never ends
        assert time.monotonic() - began < 50  # a second each, on a machine that has them
        assert b" 400 " in server.raw(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 200_000)
        head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        assert b" 400 " in server.raw(head + b"a" * 33_000 + b"\r\n\r\n")
        assert b" 200 " in server.raw(head + b"a" * 30_000 + b"\r\n\r\n")
        with server.client(headers={"Authorization": "Bearer secret"}) as client:
            assert client.post("/v1/predict", content=files[0]).status_code == 200


@pytest.mark.slow
def test_too_many_at_once_are_told_to_come_again(run: Run, files: list[bytes]) -> None:
    found: list[httpx.Response] = []
    with serving(run.path, "--queue", 2, "--workers", 1) as server:

        def ask() -> None:
            with server.client() as client:
                found.extend(
                    client.post("/v1/predict", content=files[0], params={"explain": "map"}) for _ in range(10)
                )

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    statuses = [response.status_code for response in found]
    assert len(statuses) == 120
    assert set(statuses) == {200, 429}
    assert all(int(r.headers["retry-after"]) >= 1 for r in found if r.status_code == 429)


@pytest.mark.slow
def test_every_accepted_request_is_answered(run: Run, files: list[bytes]) -> None:
    with serving(run.path, "--queue", 500, "--workers", 1) as server:
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(files[0])}\r\n\r\n".encode()
        wires = [socket.create_connection(server.address, timeout=60) for _ in range(40)]
        for wire in wires:
            wire.sendall(head + files[0])
        with server.client() as client:  # read after them, by the same loop: they are in
            client.get("/healthz")
        code, err = server.stop()
        answers = []
        for wire in wires:
            answer = b""
            while data := wire.recv(65536):
                answer += data
            answers.append(answer)
            wire.close()
    assert (code, err) == (0, "")
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert all(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"] for answer in answers)


@pytest.mark.slow
def test_stopped_under_load_no_request_is_lost(run: Run, files: list[bytes]) -> None:
    """Connections that are kept, each with its next request at once: none may fall between two answers."""
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(files[0])}\r\n\r\n".encode()
    answers: list[list[bytes]] = [[] for _ in range(12)]

    def ask(told: list[bytes]) -> None:
        with socket.create_connection(server.address, timeout=60) as wire, wire.makefile("rb") as reader:
            while not told or b"connection: keep" in told[-1]:
                told.append(b"")  # until it is answered
                wire.sendall(head + files[0])
                lines = [line := reader.readline()]
                while line.strip():
                    lines.append(line := reader.readline())
                length = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
                whole = length and len(reader.read(length)) == length
                keep = b"" if b"connection: close\r\n" in lines else b"connection: keep"
                told[-1] = lines[0] + keep if whole else b"broken off"

    with serving(run.path) as server:
        threads = [threading.Thread(target=ask, args=(told,)) for told in answers]
        for thread in threads:
            thread.start()
        while min(map(len, answers)) < 3 and all(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        code, err = server.stop()
        for thread in threads:
            thread.join()
    assert (code, err) == (0, "")
    assert {answer[:13] for told in answers for answer in told} == {b"HTTP/1.1 200 "}
    assert min(map(len, answers)) >= 3


@pytest.mark.slow
def test_a_run_that_changes_is_loaded_anew_if_it_is_whole(
    run: Run, files: list[bytes], tmp_path: Path
) -> None:
    folder = shutil.copytree(run.path, tmp_path / "live")

    def version() -> str:
        with server.client() as client:
            assert client.post("/v1/predict", content=files[0]).status_code == 200
            return str(client.get("/v1/models").json()["models"][0]["version"])

    def figure(outcome: str) -> bool:
        with server.client() as client:
            return f'topwork_reloads_total{{model="live",outcome="{outcome}"}}' in client.get("/metrics").text

    def wait(outcome: str) -> None:
        end = time.monotonic() + 60
        while not figure(outcome):
            assert time.monotonic() < end
            time.sleep(0.1)

    with serving(folder) as server:
        server.process.send_signal(signal.SIGHUP)  # at once, as when a terminal is closed: it is heard
        wait("loaded")
        first = version()
        weights = (folder / "model.bin").read_bytes()
        (folder / "model.bin").write_bytes(weights[: len(weights) // 2])  # in place, as cp has it
        wait("failed")
        assert version() == first
        (folder / "model.bin").write_bytes(weights)
        plain = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        (folder / "classifier.json").write_text(json.dumps(plain), encoding="utf-8")
        (folder / NEIGHBOURS).unlink()
        end = time.monotonic() + 60
        while version() == first:  # which answers meanwhile
            assert time.monotonic() < end
            time.sleep(0.1)
        code, err = server.stop()
    assert code == 0
    assert "reload failed; the previous model stays" in err


def test_what_cannot_be_served(call: Topwork, run: Run, tmp_path: Path) -> None:
    one_line(call("serve", tmp_path), "expected a folder that `topwork train` wrote")
    told = call("serve", run.path, run.path, "--port", 0)
    one_line(told, "another run is also called 'shapes'; give this one a name")
    (tmp_path / "token").write_text("\n", encoding="utf-8")
    one_line(call("serve", run.path, "--token-file", tmp_path / "token"), "it is empty")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one_line(call("serve", run.path, "--port", taken.getsockname()[1]), "choose another --port")
    one_line(call("serve", run.path, "--timeout", 0), "the limit `seconds` must be above 0")
