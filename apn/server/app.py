"""The application: routes, and `serve`, which runs them until a signal says stop."""

import asyncio
import base64
import hashlib
import logging
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from apn.detection import Detection
from apn.image import ImageError
from apn.server.answers import (
    REFUSALS,
    Answer,
    DetectQuery,
    ExplainQuery,
    ExplanationAnswer,
    Limits,
    ModelInfo,
    ModelName,
    Refusal,
    refusals,
    upload_body,
)
from apn.server.docs import docs_page
from apn.server.explainer import Explainer, Explanations
from apn.server.guard import Guard
from apn.server.metrics import Metrics
from apn.server.queue import Batcher, QueueFullError
from apn.server.settings import ServerSettings
from apn.server.uploads import UploadReader, busy
from apn.server.webpage import one_document
from apn.version import __version__

if TYPE_CHECKING:
    from apn.detector import Detector

log = logging.getLogger("apn.server")
Result = TypeVar("Result")
NOT_ASKED_FOR = "this server was started without explanations"
STILL_EXPLAINING = (
    "send the same file again: the first explanation opens PyTorch and the network, which goes on meanwhile"
)


def create_app(
    detector: "Detector", settings: ServerSettings | None = None, explainer: Explainer | str = NOT_ASKED_FOR
) -> FastAPI:
    """The ASGI application around a loaded detector. Its threads live as long as its lifespan.

    explainer: makes the explanations, one at a time in a thread; or why there are none, in plain words.
    """
    settings = settings or ServerSettings()
    metrics = Metrics()
    reader = UploadReader(settings)
    batcher = Batcher(detector, settings, metrics)
    limits = {name: getattr(settings, name) for name in Limits.model_fields}
    available = {"available": False, "reason": explainer} if isinstance(explainer, str) else {"available": True}
    info = ModelInfo.model_validate(detector.describe() | {"limits": limits, "explanations": available})
    model = ModelName(name=info.name, version=info.version, sha256=info.sha256)
    explanations = None
    if not isinstance(explainer, str):
        explanations = Explanations(explainer, settings, metrics, model=model.model_dump())
    metrics.watch(
        depth=lambda: batcher.depth,
        held=lambda: reader.held,
        explaining=None if explanations is None else lambda: explanations.pending,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.close)
        if explanations is not None:
            await asyncio.to_thread(explanations.close)

    app = FastAPI(
        title="apn",
        version=__version__,
        description="Tells AI-generated images from photographs. Uploads stay in memory and are forgotten once scored; "
        "explanations that were asked for are kept in memory for a while.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address made of what reaches us: without the https and the path of a proxy
    )
    app.state.explanations = explanations
    app.add_middleware(Guard, settings=settings, metrics=metrics)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = (f"{'.'.join(map(str, item['loc']))}: {_problem(item)}" for item in error.errors())
        return JSONResponse({"detail": "; ".join(problems), "detections": []}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; the number is for log and metrics

    @app.post("/v1/detect", responses=refusals(400, 408, 413, 415, 422, 500, 503), openapi_extra=upload_body())
    async def detect(request: Request, query: Annotated[DetectQuery, Query()]) -> Answer:
        """Score one or more image files.

        200 with one row per file. Among several files one that cannot be read has `error` in its row; a file that
        came alone and cannot be read is answered 422 with its row.
        """
        if batcher.depth >= settings.queue_images:  # before the body, which would be read for nothing
            raise busy(settings, "the queue is full; try again")
        async with reader.read(request) as uploads:
            if settings.log_file_names:
                log.info("files: %s", ", ".join(repr(upload.name) for upload in uploads))
            try:
                futures = batcher.submit(uploads, query.stability)
            except QueueFullError as error:
                raise busy(settings, "the queue is full; try again") from error
            rows = await _results(request, futures, settings, late="try again, or send fewer images")
        if len(rows) == 1 and rows[0].error is not None:
            raise _UnreadableError(rows[0])
        return Answer(model=model, detections=rows)

    @app.exception_handler(_UnreadableError)
    async def unreadable(request: Request, error: _UnreadableError) -> JSONResponse:
        return JSONResponse({"detail": error.row.error, "detections": [error.row.to_dict()]}, 422)

    @app.post(
        "/v1/explain",
        response_model=ExplanationAnswer,
        responses=refusals(400, 408, 413, 415, 422, 500, 501, 503),
        openapi_extra=upload_body(most=1),
    )
    async def explain(request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
        """Explain one image file: heat maps of both branches, the spectrum, the bands and the images that they make.

        Made by a thread of its own, one image at a time, and kept in memory for the next who asks. `GET /v1/model`
        says whether this server can.
        """
        if explanations is None:
            raise HTTPException(501, str(explainer))
        async with reader.read(request, max_files=1) as uploads:
            if settings.log_file_names:
                log.info("explain: %r", uploads[0].name)
            try:
                future = await asyncio.to_thread(explanations.submit, uploads[0].content)
            except QueueFullError as error:
                raise busy(settings, "other images are being explained; try again") from error
            try:
                (body,) = await _results(request, [future], settings, late=STILL_EXPLAINING)
            except ImageError as error:
                raise _UnreadableError(Detection(path=uploads[0].name, error=str(error))) from error
        return Response(body, media_type="application/json")

    @app.get("/v1/model", responses=refusals())
    async def describe_model() -> ModelInfo:
        """Name, version and hash of the weights, thresholds, calibration, and the limits of a request."""
        return info

    @app.get(
        "/healthz",
        responses={
            403: REFUSALS[403],
            503: {"model": Refusal, "description": "The inference thread does not run."},
        },
    )
    async def health() -> dict[str, str]:
        """Whether the server can score images. Asks no token."""
        if not batcher.alive:
            raise HTTPException(503, "the inference thread does not run")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=refusals() | {200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Counters and histograms in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    page = _html(one_document())
    docs = _html(docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def web_page() -> Response:
        return page

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return docs

    return app


def _problem(item: dict[str, Any]) -> str:
    """What is wrong with a parameter, from an error of pydantic."""
    unknown = item["type"] == "extra_forbidden"
    return "no such parameter; /docs lists those there are" if unknown else str(item["msg"])


class _UnreadableError(Exception):
    """The only image of a request has an error row."""

    def __init__(self, row: Detection) -> None:
        super().__init__(row.error)
        self.row = row


async def _results(
    request: Request, futures: Sequence[Future[Result]], settings: ServerSettings, late: str
) -> list[Result]:
    """The results of `futures` in their order; cancels what has not begun when time is up or the client has left.

    late: what a client can do about it that is told that time is up.
    """
    results = asyncio.gather(*map(asyncio.wrap_future, futures))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        either: set[asyncio.Future[Any]] = {results, gone}
        await asyncio.wait(either, timeout=settings.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not results.done():
            raise ClientDisconnect
        if not results.done():
            raise busy(settings, f"no answer within {settings.timeout_s:g} s; {late}")
        return results.result()
    finally:
        results.cancel()
        gone.cancel()
        await asyncio.gather(results, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _html(text: str) -> HTMLResponse:
    """A page that may run its own inline script and style, and talk to this server, and nothing else."""
    allow = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"
            for block in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        )
        or "'none'"
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {allow['script']}; style-src {allow['style']}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def serve(detector: "Detector", settings: ServerSettings, explainer: Explainer | str = NOT_ASKED_FOR) -> None:
    """Serve until SIGINT or SIGTERM; then take no new request, finish those in flight, and return.

    explainer: as in `create_app`. Call it from the main thread. Logs to standard error unless the program has set up
    logging itself. Raises SystemExit where the address cannot be used. Where an explanation that nobody waits for any
    more is still being made after some seconds, it ends the process, exit code 0: no thread can be stopped otherwise.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    app = create_app(detector, settings, explainer)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # its lines would hold raw paths; Guard writes one line per request instead
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(2 * settings.timeout_s) + 1,  # receiving and answering, each bounded
    )
    # uvicorn raises the signal again once everything is finished; this makes both signals end here, not in an abort.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()
    explanations: Explanations | None = app.state.explanations
    if explanations is not None and explanations.pending:
        log.warning("an explanation was still being made: given up")
        logging.shutdown()
        os._exit(0)
