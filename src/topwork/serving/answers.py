"""The response schemas, for the OpenAPI description, and the functions that build responses."""

from __future__ import annotations

import base64
import io
from typing import Any

from pydantic import BaseModel, Field

from topwork.classifiers.attention import overlay
from topwork.errors import ImageError
from topwork.serving.models import ClassifiedPicture, Served


class Told(BaseModel):
    code: str
    message: str


class Problem(BaseModel):
    error: Told


class Named(BaseModel):
    name: str = Field(alias="class")
    probability: float


class Neighbour(BaseModel):
    label: str
    similarity: float
    thumbnail: str = Field(description="data:image/jpeg;base64,…")


class Answer(BaseModel):
    image: int = Field(description="its index in the request, from 0")
    name: str | None = Field(None, alias="class", description="the most likely class")
    probability: float | None = None
    rejected: bool | None = Field(None, description="whether it is out-of-distribution: none of the classes")
    reason: str | None = None
    novelty: float | None = Field(None, description="above 1: none of the classes")
    top: list[Named] | None = None
    set: list[str] | None = Field(None, description="the prediction set, if a coverage was given")
    map: str | None = Field(None, description="where the network looked: data:image/png;base64,…")
    neighbours: list[Neighbour] | None = Field(None, description="the nearest training pictures")
    error: Told | None = None


class Answers(BaseModel):
    model: str
    version: str
    predictions: list[Answer]


def model_answer(served: Served) -> dict[str, Any]:
    """Describe a served run."""
    classifier = served.classifier
    facts, calibration = classifier.backbone.facts, classifier.calibration
    return {
        "name": served.name,
        "version": served.version,
        "classes": list(classifier.classes),
        "input": {"size_px": facts.size_px, "fit": facts.fit.to_plain()},
        "rejects": classifier.novelty is not None,
        "test": served.test,
        "explains": [
            *(["map"] if served.mapper.possible else []),
            *(["neighbours"] if served.neighbours is not None else []),
        ],
        "coverage": calibration is not None and calibration.images > 0,
    }


def picture_answer(
    served: Served,
    data: bytes,
    number: int,
    *,
    most_pixels: int,
    top: int,
    least: float | None,
    explain: frozenset[str],
) -> dict[str, Any]:
    """The prediction for one picture, or the error if it can't be read."""
    try:
        result = served.classify(data, most_pixels=most_pixels)
    except ImageError as error:
        return {"image": number, "error": {"code": "unreadable_image", "message": str(error)}}
    prediction = result.prediction
    name, probability = prediction.top()[0]
    answer: dict[str, Any] = {
        "image": number,
        "class": name,
        "probability": round(probability, 6),
        "rejected": prediction.rejected,
        "reason": prediction.reason,
        "novelty": None if prediction.novelty is None else round(prediction.novelty, 4),
        "top": [{"class": c, "probability": round(p, 6)} for c, p in prediction.top(top)],
    }
    if least is not None:
        answer["set"] = [c for c, _ in prediction.at_least(least)]
    return answer | _explained(served, result, explain)


def _explained(served: Served, result: ClassifiedPicture, explain: frozenset[str]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if "map" in explain and served.mapper.possible:
        assert result.prediction.probabilities is not None
        heat = served.mapper.map(result.pixels, int(result.prediction.probabilities.argmax()))
        parts["map"] = _data("png", _png(overlay(result.pixels, heat)))
    if "neighbours" in explain and served.neighbours is not None:
        parts["neighbours"] = [
            {"label": n.label, "similarity": round(n.similarity, 4), "thumbnail": _data("jpeg", n.thumbnail)}
            for n in served.neighbours.nearest(result.features)
        ]
    return parts


def _data(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _png(pixels: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
