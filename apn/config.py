"""Settings: one frozen model per concern, read from TOML, unknown keys refused. Each setting has one default, here."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """A frozen table of settings; an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Settings):
    """The network. Defaults are the paper's; "official" behaviour is the default wherever METHOD has a choice."""

    image_size: int = Field(224, ge=32, description="side of the square input, pixels")
    embedding_dim: int = Field(256, ge=48, multiple_of=2, description="D, size of each embedding")
    band_count: int = Field(15, ge=1, description="K, frequency bands per component")
    band_encoder: str = Field("resnet18", description="trunk that sees each purified or residual image")
    spatial_backbone: str = Field("convnext_base.fb_in1k", description="trunk that sees the image")
    pretrained: bool = Field(True, description="start the spatial backbone from ImageNet weights")
    pretrained_irrelevant: bool = Field(True, description="start the irrelevant band encoder from ImageNet weights")
    bands: Literal["hard", "soft", "straight-through"] = Field(
        "hard",
        description="hard: 0/1 masks, no task gradient at the proposers (official); soft: sigmoid edges; "
        "straight-through: hard forward, soft backward",
    )
    band_edge_width: float = Field(2.0, gt=0, description="width of a soft edge, spectrum positions")
    band_rows: Literal["half", "symmetric"] = Field(
        "half", description="half: rows as stored (official); symmetric: row r and its mirror H - r together"
    )
    band_suppression: bool = Field(False, description="non-maximum suppression of overlapping bands")
    cut_weakest_bands: bool = Field(True, description="K > 15: weights below the 15th smallest become 0 (official)")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="order the weights expect; input is always RGB")
    spatial_normalize: bool = Field(False, description="ImageNet mean and std before the spatial backbone")


class LossConfig(Settings):
    """Weight of each loss term (METHOD section 4); 0 leaves a term out."""

    classification: float = Field(1.0, ge=0)
    artifact_agreement: float = Field(1.0, ge=0)
    irrelevant_agreement: float = Field(1.0, ge=0)
    band_order: float = Field(1.0, ge=0)
    orthogonality: float = Field(1.0, ge=0)
    information: float = Field(1.0, ge=0)
    semantic: float = Field(1.0, ge=0, description="used only with a semantic_teacher")
    band_order_margin: float = Field(0.01, ge=0, description="least length of a band, fraction of the axis")
    club_pairs: Literal["mean", "branches"] = Field(
        "mean", description="CLUB between the branches' mean embeddings, or one CLUB per branch"
    )
    club_hidden: int = Field(256, ge=2, multiple_of=2)
    semantic_teacher: str | None = Field(None, description="timm model whose frozen embedding guides the irrelevant")
    semantic_teacher_pretrained: bool = True


Probability = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
Sigma = Annotated[float, Field(ge=0, le=20)]
Factor = Annotated[float, Field(gt=0, le=1)]


class DegradationConfig(Settings):
    """How training crops are degraded, both classes alike: a probability per kind and the (low, high) of its strength.

    Without `one_of` each kind is tossed for on its own, and those that come up are applied in the order below.
    """

    downscale: Probability = 0.0
    downscale_factor: tuple[Factor, Factor] = (0.5, 1.0)
    # False: the crop is cut from a smaller picture. A factor that leaves no full crop is raised until one fits, so
    # small pictures are scaled less; where picture size leaks the label, keep low >= S / shortest side, or use True.
    # True: the crop itself is scaled down and back up, which asks nothing of the picture's size.
    downscale_back: bool = False
    flip: Probability = 0.5
    blur: Probability = 0.0
    blur_sigma: tuple[Sigma, Sigma] = (0.1, 1.5)
    jpeg: Probability = 0.0
    jpeg_quality: tuple[Quality, Quality] = (30, 100)
    webp: Probability = 0.0
    webp_quality: tuple[Quality, Quality] = (30, 100)
    # Only one kind, drawn among those of positive probability, is tossed for (the official "one of them at random").
    one_of: bool = False
    # After all that, every crop goes through a codec: JPEG, or JPEG or WebP evenly ("mixed"); "none" leaves the format
    # leak in and is there for parity with the official run.
    codec_last: Literal["none", "jpeg", "mixed"] = "mixed"
    codec_last_quality: tuple[Quality, Quality] = (60, 100)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "DegradationConfig":
        for name, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"expected {name} as (low, high), found {value}")
        return self


class DataConfig(Settings):
    """What is trained on and how a batch is drawn."""

    train: str = Field("", description="folder with real/ and generated/, or a JSONL or CSV manifest")
    folds: str | None = Field(None, description="folds.json that names generators to leave out together")
    leave_out_fold: str | None = Field(None, description="fold of `folds` kept for testing, never trained on")
    validation: float = Field(0.1, ge=0, lt=1, description="share held out by split_group")
    validation_images: int = Field(600, ge=2, description="at most so many held-out images are scored on the way")
    balance: Literal["none", "class", "generator"] = "generator"
    quarantine: bool = Field(
        False, description="decode every training file first and leave unreadable ones out, listed"
    )
    workers: int = Field(1, ge=0, description="loader processes")
    degradations: DegradationConfig = DegradationConfig()


class TrainConfig(Settings):
    """The optimisation (METHOD section 5). One step is one APN step followed by `club_steps` CLUB steps."""

    seed: int = 0
    steps: int = Field(30_000, ge=1)
    batch_size: int = Field(24, ge=2, description="global: over all processes")
    learning_rate: float = Field(1e-4, gt=0)
    basis_learning_rate: float = Field(1e-7, ge=0, description="of the two orthogonal bases")
    backbone_learning_rate: float | None = Field(None, description="of a pretrained spatial backbone; None: the same")
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(20, ge=0)
    warmup_start: float = Field(1 / 3, gt=0, le=1, description="first factor of the linear warm-up")
    schedule: Literal["step", "cosine"] = "step"
    schedule_steps: int = Field(30_000, ge=1, description="step: times 0.1 every so many; cosine: ignored")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the APN gradient; None: no limit")
    club_steps: int = Field(3, ge=0)
    club_data: Literal["fresh", "reuse"] = Field(
        "fresh", description="fresh: each CLUB step has a batch of its own (official); reuse: the APN step's embeddings"
    )
    club_learning_rate: float = Field(1e-5, gt=0)
    club_schedule_steps: int = Field(20_000, ge=1)
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the processor or GPU has it, else 32-true"
    )
    validate_every: int = Field(500, ge=1)
    save_every: int = Field(500, ge=1)
    log_every: int = Field(10, ge=1)


class Config(Settings):
    """One experiment: a file of `configs/`."""

    name: str = "apn"
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _teacher_has_a_weight(self) -> Self:
        if self.loss.semantic_teacher and not self.loss.semantic:
            raise ValueError("loss.semantic_teacher is set but loss.semantic is 0: the teacher would have no effect")
        return self


def read_config(path: str | Path, overrides: tuple[str, ...] = ()) -> Config:
    """The settings of a TOML (or saved JSON) file with `section.key=value` overrides, values in TOML notation.

    Raises ValueError naming the file, the key and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"no configuration {path}: expected a TOML file such as configs/apn-mini.toml") from error
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    return validate(Config, apply_overrides(values, overrides), str(path))


def validate(settings: type[Model], values: dict[str, Any], where: str) -> Model:
    """The settings with these values. Raises ValueError naming every key that does not fit, and where it stands."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{where}: {problems}") from error


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`values` with `section.key=value` texts put in; a value is TOML, or a bare word for a string."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"expected section.key=value, found {override!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # --set model.bands=soft
        *sections, name = key.strip().split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ValueError(f"{override!r}: {section!r} is a value, not a section")
        table[name] = value
    return values
