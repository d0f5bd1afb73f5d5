"""The application: routes, and `serve`, which runs them until a signal says stop."""

import asyncio
import base64
import hashlib
import logging
import math
import re
import signal
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from apn.detection import Detection
from apn.server.docs import docs_page
from apn.server.guard import Guard
from apn.server.metrics import Metrics
from apn.server.queue import Batcher, QueueFullError
from apn.server.settings import ServerSettings
from apn.server.uploads import FIELD, UploadReader, busy
from apn.version import __version__

if TYPE_CHECKING:
    from apn.detector import Detector

log = logging.getLogger("apn.server")


class Thresholds(BaseModel):
    """generated: probability >= generated_from; real: probability < real_below; between them: unsure.

    The targets are shares in [0, 1] that the thresholds were chosen for on held-out images, None without calibration.
    """

    model_config = ConfigDict(extra="allow")

    real_below: float
    generated_from: float
    target_fpr: float | None = Field(description="Of real photographs called generated.")
    target_fnr: float | None = Field(default=None, description="Of generated images called real.")


class Limits(BaseModel):
    """What one request may hold."""

    max_upload_bytes: int
    max_request_bytes: int
    max_files: int
    max_pixels: int


class ModelInfo(BaseModel):
    """The detector behind the answers, as `Detector.describe()` tells it, and the limits of this server."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: str
    sha256: str = Field(description="Of the weights.")
    thresholds: Thresholds
    calibration: dict[str, Any]
    limits: Limits


class ModelName(BaseModel):
    """Which weights gave the scores."""

    name: str
    version: str
    sha256: str


class Answer(BaseModel):
    """One row per file, in the order of the files, with the fields of `apn detect --json`."""

    model: ModelName
    detections: list[Detection]


class Refusal(BaseModel):
    """Why there is no verdict, in plain words."""

    detail: str


class UnreadableImage(Refusal):
    """The only image of a request could not be scored; `detections` holds its row."""

    detections: list[Detection] = []


DETECT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
            }
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "Broken multipart body, or a part that is not a file named `files`."},
    403: {"model": Refusal, "description": "Foreign Host, or a foreign Origin on a request other than GET."},
    401: {"model": Refusal, "description": "The server asks for a bearer token and got none or another."},
    408: {"model": Refusal, "description": "The request did not arrive in time."},
    413: {"model": Refusal, "description": "File, request or number of files over its limit."},
    415: {"model": Refusal, "description": "Not multipart/form-data."},
    422: {"model": UnreadableImage, "description": "A bad parameter, or the only image cannot be scored."},
    500: {"model": Refusal, "description": "A bug; the server's log says more."},
    503: {"model": Refusal, "description": "Queue or memory full, or too slow an answer: wait Retry-After seconds."},
}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: REFUSALS[status] for status in (*statuses, 401, 403)}


def create_app(detector: "Detector", settings: ServerSettings | None = None) -> FastAPI:
    """The ASGI application around a loaded detector. Its threads live as long as its lifespan."""
    settings = settings or ServerSettings()
    metrics = Metrics()
    reader = UploadReader(settings)
    batcher = Batcher(detector, settings, metrics)
    metrics.watch(depth=lambda: batcher.depth, held=lambda: reader.held)
    limits = {name: getattr(settings, name) for name in Limits.model_fields}
    info = ModelInfo.model_validate(detector.describe() | {"limits": limits})
    model = ModelName(name=info.name, version=info.version, sha256=info.sha256)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="apn",
        version=__version__,
        description="Tells AI-generated images from photographs. Uploads stay in memory and are forgotten once scored.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, settings=settings, metrics=metrics)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return JSONResponse({"detail": "; ".join(problems), "detections": []}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; the number is for log and metrics

    @app.post(
        "/v1/detect", responses=_refusals(400, 408, 413, 415, 422, 500, 503), openapi_extra={"requestBody": DETECT_BODY}
    )
    async def detect(
        request: Request,
        stability: Annotated[bool, Query(description="Also score re-deliveries of each image; slower.")] = True,
    ) -> Answer:
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
                futures = batcher.submit(uploads, stability)
            except QueueFullError as error:
                raise busy(settings, "the queue is full; try again") from error
            rows = await _rows(request, futures, settings)
        if len(rows) == 1 and rows[0].error is not None:
            raise _UnreadableError(rows[0])
        return Answer(model=model, detections=rows)

    @app.exception_handler(_UnreadableError)
    async def unreadable(request: Request, error: _UnreadableError) -> JSONResponse:
        return JSONResponse({"detail": error.row.error, "detections": [error.row.to_dict()]}, 422)

    @app.get("/v1/model", responses=_refusals())
    async def describe_model() -> ModelInfo:
        """Name, version and hash of the weights, thresholds, calibration, and the limits of a request."""
        return info

    @app.get("/healthz", responses={503: {"model": Refusal, "description": "The inference thread does not run."}})
    async def health() -> dict[str, str]:
        """Whether the server can score images. Asks no token."""
        if not batcher.alive:
            raise HTTPException(503, "the inference thread does not run")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=_refusals() | {200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Counters and histograms in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    page = _html((files(__package__) / "page.html").read_text("utf-8"))
    docs = _html(docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def web_page() -> Response:
        return page

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return docs

    return app


class _UnreadableError(Exception):
    """The only image of a request has an error row."""

    def __init__(self, row: Detection) -> None:
        super().__init__(row.error)
        self.row = row


async def _rows(request: Request, futures: Sequence[Future[Detection]], settings: ServerSettings) -> list[Detection]:
    """The rows of `futures` in their order; cancels what has not begun when time is up or the client has left."""
    rows = asyncio.gather(*map(asyncio.wrap_future, futures))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        either: set[asyncio.Future[Any]] = {rows, gone}
        await asyncio.wait(either, timeout=settings.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not rows.done():
            raise ClientDisconnect
        if not rows.done():
            raise busy(settings, f"no answer within {settings.timeout_s:g} s; try again, or send fewer images")
        return rows.result()
    finally:
        rows.cancel()
        gone.cancel()
        await asyncio.gather(rows, gone, return_exceptions=True)


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


def serve(detector: "Detector", settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM; then take no new request, finish those in flight, and return.

    Call it from the main thread. Logs to standard error unless the program has set up logging itself.
    Raises SystemExit where the address cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(
        create_app(detector, settings),
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
