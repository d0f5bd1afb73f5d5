"""What the server is asked and answers, as types: the OpenAPI description is made from them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from apn.detection import Detection
from apn.server.uploads import FIELD


class DetectQuery(BaseModel):
    """The parameters of `POST /v1/detect`. A misspelt one is refused: the request would run with the default."""

    model_config = ConfigDict(extra="forbid")

    stability: bool = Field(default=True, description="Also score re-deliveries of each image; slower.")


class ExplainQuery(BaseModel):
    """`POST /v1/explain` has no parameters. One is refused: the answer would be that to another question."""

    model_config = ConfigDict(extra="forbid")


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


class ExplanationsInfo(BaseModel):
    """Whether `POST /v1/explain` works here, and if not, why."""

    available: bool
    reason: str | None = None


class ModelInfo(BaseModel):
    """The detector behind the answers, as `Detector.describe()` tells it, and the limits of this server."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: str
    sha256: str = Field(description="Of the weights.")
    thresholds: Thresholds = Field(description="Of one score: where the stability check is off.")
    checked_thresholds: Thresholds = Field(
        description="With the stability check: the picture and all its re-deliveries have to pass them."
    )
    calibration: dict[str, Any]
    limits: Limits
    explanations: ExplanationsInfo


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


class TilePlace(BaseModel):
    """A part of the image, in pixels from its upper left corner."""

    left: int
    top: int
    size: int


class BandInterval(BaseModel):
    """Frequencies that a band selects along one axis in one colour: low to high, in cycles per pixel."""

    component: Literal["amplitude", "phase"]
    axis: Literal["vertical", "horizontal"]
    colour: Literal["red", "green", "blue"]
    low: float
    high: float
    mirrored: bool = Field(description="The negative frequencies are selected too.")
    void: bool = Field(description="The network proposed an empty band: frequency 0 alone is left.")


class Band(BaseModel):
    """One band of the frequency branch. weight: of its embedding, in [0, 1]. effect: what the logit, generated less
    real, loses without it."""

    number: int
    weight: float
    effect: float
    intervals: list[BandInterval]


class ColourScale(BaseModel):
    """What the colours of a panel stand for, evenly spaced from low to high."""

    low: float
    high: float
    label: str
    colours: list[str]


class Panel(BaseModel):
    """One picture of an explanation: a data URI, and how to read it."""

    name: str
    title: str
    meaning: str
    width: int
    height: int
    image: str
    scale: ColourScale | None


class ExplanationAnswer(BaseModel):
    """Why the detector said what it said of one image; docs/explanations.md says how to read it.

    target: which verdict the heat maps show evidence for. tile: whose spectrum and bands these are. bands: in
    cycles per pixel, the one that speaks most for the target first.
    """

    model: ModelName
    target: Literal["generated", "real"]
    panels: list[Panel]
    tile: TilePlace
    unit: str
    bands: list[Band]


def upload_body(most: int | None = None) -> dict[str, Any]:
    """The description of a multipart body of at most so many files."""
    limits = {"minItems": 1} if most is None else {"minItems": 1, "maxItems": most}
    field = {"type": "array", **limits, "items": {"type": "string", "format": "binary"}}
    schema = {"type": "object", "required": [FIELD], "properties": {FIELD: field}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "Broken multipart body, or a part that is not a file named `files`."},
    403: {"model": Refusal, "description": "Foreign Host, or a foreign Origin on a request other than GET."},
    401: {"model": Refusal, "description": "The server asks for a bearer token and got none or another."},
    408: {"model": Refusal, "description": "The request did not arrive in time."},
    413: {"model": Refusal, "description": "File, request or number of files over its limit."},
    415: {"model": Refusal, "description": "Not multipart/form-data."},
    422: {"model": UnreadableImage, "description": "A bad parameter, or the only image cannot be scored."},
    500: {"model": Refusal, "description": "A bug; the server's log says more."},
    501: {"model": Refusal, "description": "This server has no explanations; `GET /v1/model` says why."},
    503: {"model": Refusal, "description": "Queue or memory full, or too slow an answer: wait Retry-After seconds."},
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The descriptions of these statuses, and of those that the door may give anywhere."""
    return {status: REFUSALS[status] for status in (*statuses, 401, 403)}
