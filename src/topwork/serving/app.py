"""The application and its routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from topwork.errors import InputError
from topwork.serving import kserve
from topwork.serving.answers import Answers, Problem, model_answer, picture_answer
from topwork.serving.guard import Guard, State, problem
from topwork.serving.intake import Intake, pictures_of
from topwork.serving.metrics import Metrics
from topwork.serving.models import Registry, Served
from topwork.serving.settings import Limits, Refused
from topwork.serving.work_queue import WorkQueue

PAGE = Path(__file__).with_name("page")
KINDS = {"index.html": "text/html; charset=utf-8", "page.css": "text/css", "page.js": "text/javascript"}
EXPLAINS = frozenset(("map", "neighbours"))
WATCH_S = 1.0  # between two checks of the runs' folders
PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
        },
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "The request can't be read."),
        (404, "No such model."),
        (408, "The body arrived too slowly."),
        (413, "The body is too large."),
        (422, "None of the pictures can be read."),
        (429, "Busy: retry after Retry-After seconds."),
    )
}
TENSOR_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": kserve.REQUEST}}}}
PROTOCOL_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": kserve.Failure, "description": told["description"]}
    for status, told in REFUSALS.items()
    if status != 422
}


def make_app(
    registry: Registry,
    limits: Limits,
    *,
    workers: int,
    token: str | None,
    local: bool,
    reload: bool,
    page: bool,
) -> tuple[Any, State]:
    """The complete ASGI application."""
    queue, intake, state = WorkQueue(limits, workers=workers), Intake(limits), State()
    metrics = Metrics(queue, intake)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None, None]:
        task = asyncio.create_task(_watch(registry, queue, metrics)) if reload else None
        yield
        if task:
            task.cancel()

    app = FastAPI(title="Topwork", version=version("topwork"), lifespan=life, docs_url=None, redoc_url=None)
    _predicting(app, registry, queue, intake, metrics)
    _protocol(app, registry, queue, intake, metrics, state)
    _health(app, metrics, state)
    if page:
        _page(app)
    _failures(app)
    return Guard(app, metrics=metrics, state=state, token=token, local=local), state


def _predicting(app: FastAPI, registry: Registry, queue: WorkQueue, intake: Intake, metrics: Metrics) -> None:
    @app.post(
        "/v1/predict",
        response_model=None,
        responses={200: {"model": Answers}, **REFUSALS},
        openapi_extra=PICTURE_BODY,
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="A model's name; default: the first one.")] = None,
        top: Annotated[int, Query(ge=1, le=1000, description="How many classes to name.")] = 5,
        coverage: Annotated[float | None, Query(description="Of the prediction set, such as 0.95.")] = None,
        explain: Annotated[str, Query(description="map, neighbours, or both with a comma.")] = "",
    ) -> Response:
        """Classify pictures, or reject them as "none of these": send one file as the body, or files in a form."""
        served = _served(registry, model)
        wanted = frozenset(explain.split(",")) - {""}
        if wanted - EXPLAINS:
            raise Refused(400, "bad_request", f"`explain` takes {', '.join(sorted(EXPLAINS))}")
        try:
            least = None if coverage is None else served.classifier.least_probability(coverage)
        except InputError as error:
            raise Refused(400, "bad_request", str(error)) from None
        queue.check()
        async with intake.body(request) as body:
            pictures = await pictures_of(request, body, intake.limits)
            answers = await queue.run(
                [
                    partial(
                        picture_answer,
                        served,
                        data,
                        number,
                        most_pixels=intake.limits.pixels,
                        top=top,
                        least=least,
                        explain=wanted,
                    )
                    for number, data in enumerate(pictures)
                ]
            )
        for answer in answers:
            metrics.picture(served.name, rejected=answer.get("rejected"))
        if all("error" in answer for answer in answers):
            first = answers[0]["error"]
            raise Refused(422, first["code"], first["message"])
        return _json({"model": served.name, "version": served.version, "predictions": answers})

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The served models."""
        return {"models": [model_answer(served) for served in registry]}

    @app.get("/v1/models/{name}", responses={404: {"model": Problem}})
    async def model(name: str) -> dict[str, Any]:
        """One served model."""
        return model_answer(_served(registry, name))


def _protocol(
    app: FastAPI, registry: Registry, queue: WorkQueue, intake: Intake, metrics: Metrics, state: State
) -> None:
    @app.get("/v2")
    @app.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        return kserve.server_answer()

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        return _json({"ready": state.ready}, status=200 if state.ready else 503)

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        return kserve.metadata(_served(registry, name, version))

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        return {"name": _served(registry, name, version).name, "ready": True}

    @app.post("/v2/models/{name}/infer", responses=PROTOCOL_REFUSALS, openapi_extra=TENSOR_BODY)
    @app.post(
        "/v2/models/{name}/versions/{version}/infer", responses=PROTOCOL_REFUSALS, openapi_extra=TENSOR_BODY
    )
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """The Open Inference Protocol: `image` UINT8 [N, S, S, 3], or `bytes` BYTES [N], files in base64."""
        served = _served(registry, name, version)
        queue.check()
        async with intake.body(request) as body:
            asked, jobs = await asyncio.to_thread(kserve.jobs_of, served, body, intake.limits)
            results = await queue.run(jobs)
        for result in results:
            metrics.picture(served.name, rejected=result.prediction.rejected)
        return _json(kserve.answer(served, results, asked))


def _health(app: FastAPI, metrics: Metrics, state: State) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "Shutting down."}})
    async def readyz() -> Response:
        """The server accepts requests."""
        return _json({"status": "ready" if state.ready else "stopping"}, status=200 if state.ready else 503)

    @app.get("/metrics", name="metrics")
    async def show_metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _page(app: FastAPI) -> None:
    def show(name: str) -> Response:
        return Response((PAGE / name).read_bytes(), media_type=KINDS[name])

    app.get("/", include_in_schema=False)(partial(show, "index.html"))
    app.get("/page.css", include_in_schema=False)(partial(show, "page.css"))
    app.get("/page.js", include_in_schema=False)(partial(show, "page.js"))


def _failures(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _failure(request, error.status, error.code, error.message, retry_s=error.retry_s)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        word = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return _failure(request, error.status_code, word, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _failure(request, 400, "bad_request", f"{first['loc'][-1]}: {first['msg']}"[:200])

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return _failure(request, 500, "internal", "internal error; see the server's log")


def _failure(
    request: Request, status: int, code: str, message: str, *, retry_s: int | None = None
) -> Response:
    response = _json(problem(request.url.path, code, message), status=status)
    if retry_s is not None:
        response.headers["retry-after"] = str(retry_s)
    if status in (408, 413):
        response.headers["connection"] = "close"  # don't read the rest of the body
    return response


def _served(registry: Registry, name: str | None, version: str | None = None) -> Served:
    try:
        served = registry.get(name)
    except InputError as error:
        raise Refused(404, "unknown_model", str(error)) from None
    if version is not None and version != served.version:
        raise Refused(404, "unknown_model", f"the served version is {served.version}")
    return served


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")


async def _watch(registry: Registry, queue: WorkQueue, metrics: Metrics) -> None:
    """Check the runs' folders periodically, and immediately on SIGHUP."""
    told = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), WATCH_S)
        force = told.is_set()
        told.clear()
        for name, loaded in await queue.run_job(partial(registry.refresh, force=force)):
            metrics.reloads.labels(name, "loaded" if loaded else "failed").inc()
