"""The Open Inference Protocol, version 2, over HTTP: https://github.com/kserve/open-inference-protocol.

Inputs: `image` UINT8 [N, S, S, 3], pixels at the network's size; or `bytes` BYTES [N], picture files in base64.
Outputs: `probabilities` FP32 [N, K], `class` BYTES [N] and, with a rule for "none of these", `novelty` FP32 [N, 1].
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import BaseModel

from topwork.errors import ImageError
from topwork.serving.models import ClassifiedPicture, Served
from topwork.serving.settings import Limits, Refused

PLATFORM = "topwork_openvino"
OUTPUTS = ("probabilities", "class", "novelty")
REQUEST = {  # of an inference, for the OpenAPI description
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"enum": ["image", "bytes"]},
                    "datatype": {"enum": ["UINT8", "BYTES"]},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array", "items": {}},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"enum": list(OUTPUTS)}}},
        },
    },
}


class Failure(BaseModel):
    error: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The request's id and the outputs it asks for."""

    id: str | None
    outputs: tuple[str, ...]


def server_answer() -> dict[str, Any]:
    return {"name": "topwork", "version": version("topwork"), "extensions": []}


def metadata(served: Served) -> dict[str, Any]:
    size, classes = served.classifier.backbone.facts.size_px, len(served.classifier.classes)
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "class", "datatype": "BYTES", "shape": [-1]},
    ]
    if served.classifier.novelty is not None:
        outputs.append({"name": "novelty", "datatype": "FP32", "shape": [-1, 1]})
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [-1, size, size, 3]},
        {"name": "bytes", "datatype": "BYTES", "shape": [-1]},
    ]
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }


def jobs_of(
    served: Served, body: bytes, limits: Limits
) -> tuple[Asked, list[Callable[[], ClassifiedPicture]]]:
    """Parse a request into its id, its outputs and one job per picture.

    Raises:
        Refused: the body is not a valid request.
    """
    try:
        plain = json.loads(body)
        tensor = plain["inputs"][0]
        name, kind, shape, data = tensor["name"], tensor["datatype"], tensor["shape"], tensor["data"]
        count = int(shape[0])
        asked = Asked(_text(plain.get("id")), _wanted(served, plain.get("outputs")))
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError):
        raise Refused(
            400, "bad_request", "expected JSON with inputs[0]: name, datatype, shape, data"
        ) from None
    if not 0 < count <= limits.pictures:
        raise Refused(400, "bad_request", f"expected 1 to {limits.pictures} pictures; got {count}")
    if (name, kind) == ("bytes", "BYTES"):
        return asked, [_file_job(served, _file(text), limits) for text in _files(data, count)]
    if (name, kind) == ("image", "UINT8"):
        return asked, [_pixel_job(served, pixels) for pixels in _pixels(served, data, shape)]
    raise Refused(400, "bad_request", "expected the input `image` UINT8 or `bytes` BYTES")


def answer(served: Served, results: list[ClassifiedPicture], asked: Asked) -> dict[str, Any]:
    p = np.stack([result.prediction.probabilities for result in results])  # type: ignore[misc]
    outputs: list[dict[str, Any]] = [
        _output("probabilities", "FP32", p.shape, [round(float(v), 7) for v in p.ravel()]),
        _output("class", "BYTES", (len(results),), [result.prediction.top()[0][0] for result in results]),
    ]
    if served.classifier.novelty is not None:
        far = [result.prediction.novelty for result in results]
        outputs.append(_output("novelty", "FP32", (len(results), 1), far))
    outputs = [output for output in outputs if output["name"] in asked.outputs]
    told = {"model_name": served.name, "model_version": served.version, "outputs": outputs}
    return told if asked.id is None else {**told, "id": asked.id}


def _output(name: str, kind: str, shape: tuple[int, ...], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": list(shape), "data": data}


def _wanted(served: Served, outputs: Any) -> tuple[str, ...]:
    """The requested outputs; all by default."""
    known = OUTPUTS if served.classifier.novelty is not None else OUTPUTS[:-1]
    if not outputs:
        return known
    names = tuple(output["name"] for output in outputs)
    if any(name not in known for name in names):
        raise Refused(400, "bad_request", f"expected outputs among {', '.join(known)}")
    return names


def _text(request_id: Any) -> str | None:
    if not isinstance(request_id, str):
        return None
    return request_id[:200].encode("utf-8", "replace").decode()


def _files(data: Any, count: int) -> list[Any]:
    if not isinstance(data, list) or len(data) != count:
        raise Refused(400, "bad_request", f"expected {count} strings in data, according to the shape")
    return data


def _file(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Refused(400, "bad_request", "expected picture files in base64") from None


def _pixels(served: Served, data: Any, shape: Any) -> list[Any]:
    size = served.classifier.backbone.facts.size_px
    try:
        values = np.array(data, dtype=np.int64)
        if values.min() < 0 or values.max() > 255:
            raise ValueError
        return list(values.astype(np.uint8).reshape(int(shape[0]), size, size, 3))
    except (ValueError, TypeError, OverflowError, MemoryError):
        raise Refused(
            400, "bad_request", f"expected integers in 0..255 of shape [N, {size}, {size}, 3]"
        ) from None


def _file_job(served: Served, data: bytes, limits: Limits) -> Callable[[], ClassifiedPicture]:
    def job() -> ClassifiedPicture:
        try:
            return served.classify(data, most_pixels=limits.pixels)
        except ImageError as error:
            raise Refused(400, "unreadable_image", str(error)) from None

    return job


def _pixel_job(served: Served, pixels: Any) -> Callable[[], ClassifiedPicture]:
    return lambda: served.classify_pixels(pixels)
