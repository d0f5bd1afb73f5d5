"""Settings: one frozen model per concern, read from TOML, unknown keys refused. Each setting has one default, here."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apn.data.transforms import DegradationConfig


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


class DataConfig(Settings):
    """What is trained on and how a batch is drawn."""

    train: str = Field("", description="folder with real/ and generated/, or a JSONL or CSV manifest")
    folds: str | None = Field(None, description="folds.json that names generators to leave out together")
    leave_out_fold: str | None = Field(None, description="fold of `folds` kept for testing, never trained on")
    validation: float = Field(0.1, ge=0, lt=1, description="share held out by split_group")
    validation_images: int = Field(600, ge=2, description="at most so many held-out images are scored on the way")
    balance: Literal["none", "class", "generator"] = "generator"
    quarantine: bool = Field(False, description="decode every training file first and leave unreadable ones out, listed")
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
        if path.suffix == ".json":
            return Config.model_validate_json(text)
        values = tomllib.loads(text)
        for override in overrides:
            _set(values, override)
        return Config.model_validate(values)
    except FileNotFoundError as error:
        raise ValueError(f"no configuration {path}: expected a TOML file such as configs/apn-mini.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path}: {problems}") from error


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"expected section.key=value, found {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: --set model.bands=soft
    *sections, name = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"{override!r}: {section!r} is a value, not a section")
    values[name] = value
