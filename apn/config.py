"""Settings: one frozen model per concern, read from TOML, unknown keys refused. Each setting has one default, here."""

import json
import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, Field, Tag, ValidationError, model_validator

from apn.model_config import ARCHITECTURES, AnyModelConfig, ModelConfig, Settings, architecture_of

Model = TypeVar("Model", bound=BaseModel)


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
    information_floor: float | None = Field(
        None,
        description="CLUB's bound counts only above this, nats: information is never below 0, so a bound that is "
        "tells of an estimator that has not learnt yet; None: however low (official)",
    )
    soft_labels: bool = Field(
        False,
        description="learn what logistic regressions on the spatial branch's frozen features say, not 0 and 1; "
        "False: the labels (official)",
    )
    soft_label_batches: int = Field(175, ge=1, description="batches that these regressions are fitted on")
    soft_label_crops: Literal["training", "centre", "grids", "delivered"] = Field(
        "training",
        description="what these are fitted on: crops degraded as in training; or centre crops, half of them as they "
        "are, the others saved as in the aligned protocol; or these and, one in ten, aligned ones cut so that the "
        "JPEG's blocks begin anywhere; or these and, three in ten, pictures as web pages deliver them, mostly scaled "
        "down, saved as JPEG or WebP",
    )
    soft_label_penalty: float = Field(
        2.0, gt=0, description="half of this times their squared weights is added to their mean loss"
    )
    soft_label_joint_penalty: float | None = Field(
        None,
        gt=0,
        description="adds a regression on all looks together, each divided by the root of how many features it has, "
        "with this penalty; its logits count as much as the sum of the others. None: only one a look",
    )
    semantic_teacher: str | None = Field(None, description="timm model whose frozen embedding guides the irrelevant")
    semantic_teacher_pretrained: bool = True


Probability = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
Sigma = Annotated[float, Field(ge=0, le=20)]
Factor = Annotated[float, Field(gt=0, le=1)]
Enlargement = Annotated[float, Field(ge=1, le=4)]


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
    # The crop is cut from a smaller window and enlarged; not together with downscale, which comes first.
    upscale: Probability = 0.0
    upscale_factor: tuple[Enlargement, Enlargement] = (1.0, 1.5)
    # That of a sensor, before all saving and scaling, in grey values of 255; tossed for by itself, also with `one_of`.
    noise: Probability = 0.0
    noise_sigma: tuple[Sigma, Sigma] = (0.5, 5.0)
    # Saved as a JPEG before any scaling, as pictures on the web mostly were.
    history: Probability = 0.0
    history_quality: tuple[Quality, Quality] = (70, 98)
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

    train: str = Field("", description="LAYOUT:ROOT, a folder with real/ and generated/, or a manifest")
    folds: str | None = Field(None, description="folds.json that names generators to leave out together")
    leave_out_fold: str | None = Field(None, description="fold of `folds` kept for testing, never trained on")
    validation: float = Field(0.1, ge=0, lt=1, description="share held out by split_group")
    validation_images: int = Field(600, ge=2, description="at most so many held-out images are scored on the way")
    balance: Literal["none", "class", "root", "generator"] = Field("generator", description="see BalancedBatches")
    quarantine: bool = Field(
        False, description="decode every training file first and leave unreadable ones out, listed"
    )
    workers: int = Field(1, ge=0, description="loader processes")
    aligned: tuple[str, ...] = Field(
        (), description="manifests of `apn synthesize`: fakes, drawn with the photograph that each was made from"
    )
    aligned_share: Probability = Field(0.0, description="share of a batch that is such pairs, cut and degraded alike")
    degradations: DegradationConfig = DegradationConfig()


class TrainConfig(Settings):
    """The optimisation (METHOD section 5). One step is one APN step followed by `club_steps` CLUB steps."""

    seed: int = Field(0, ge=0, lt=2**32)
    steps: int = Field(30_000, ge=1, description="the run ends here, or with its minutes, whichever comes first")
    minutes: float | None = Field(
        None, gt=0, description="time to train, loading included, validating and saving not; cosine follows the clock"
    )
    batch_size: int = Field(24, ge=2, description="global: over all processes")
    learning_rate: float = Field(1e-4, gt=0)
    basis_learning_rate: float = Field(1e-7, ge=0, description="of the two orthogonal bases")
    head_learning_rate: float | None = Field(
        None, ge=0, description="of APN's spatial heads and its classifier; None: the same"
    )
    backbone_learning_rate: float | None = Field(
        None, ge=0, description="of APN's spatial backbone, or of a baseline's; None: the same"
    )
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(20, ge=0)
    warmup_start: float = Field(1 / 3, gt=0, le=1, description="first factor of the linear warm-up")
    schedule: Literal["step", "cosine"] = "step"
    schedule_steps: int = Field(30_000, ge=1, description="step: times 0.1 every so many; cosine: ignored")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the APN gradient; None: no limit")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="ship the weights' exponential moving average; None: the last weights"
    )
    spatial_share: float = Field(
        0.0, ge=0, lt=1, description="APN: share of the run in which the spatial branch learns alone, before the rest"
    )
    unit_spread: bool = Field(
        False,
        description="APN: in the end the classifier's last layer is scaled so that generated less real logit has a "
        "standard deviation of 1 over training crops; networks of one recipe then share thresholds. False: official",
    )
    club_steps: int = Field(3, ge=0)
    club_data: Literal["fresh", "reuse"] = Field(
        "fresh", description="fresh: each CLUB step has a batch of its own (official); reuse: the APN step's embeddings"
    )
    club_negatives: Literal["global", "local"] = Field(
        "global", description="CLUB's negatives with several processes: the global batch, or each process's part"
    )
    club_learning_rate: float = Field(1e-5, gt=0)
    club_schedule_steps: int = Field(20_000, ge=1)
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the processor or GPU has it, else 32-true"
    )
    sync_batchnorm: bool = Field(
        False, description="with several processes: batch norm over the global batch rather than each process's part"
    )
    recompute_bands: bool = Field(
        False, description="compute the band encoders' activations again in the backward pass instead of keeping them"
    )
    validate_every: int = Field(500, ge=1)
    save_every: int = Field(500, ge=1)
    log_every: int = Field(10, ge=1)


class Config(Settings):
    """One experiment: a file of `configs/`."""

    name: str = "apn"
    model: AnyModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _teacher_has_a_weight(self) -> Self:
        if self.loss.semantic_teacher and not self.loss.semantic:
            raise ValueError("loss.semantic_teacher is set but loss.semantic is 0: the teacher would have no effect")
        return self

    @model_validator(mode="after")
    def _heads_start_as_what_is_fitted(self) -> Self:
        if isinstance(self.model, ModelConfig) and self.model.head_start == "regressions" and not self.loss.soft_labels:
            raise ValueError('model.head_start = "regressions" starts as those of loss.soft_labels, which is off')
        return self

    @model_validator(mode="after")
    def _spread_is_for_apn(self) -> Self:
        if not isinstance(self.model, ModelConfig) and self.train.unit_spread:
            raise ValueError(f"train.unit_spread scales APN's classifier, which {self.model.architecture} has not")
        return self

    @model_validator(mode="after")
    def _loss_is_for_apn(self) -> Self:
        if not isinstance(self.model, ModelConfig) and self.loss != LossConfig():
            raise ValueError(
                f"[loss] is APN's: {self.model.architecture} learns by cross entropy alone, leave the section out"
            )
        return self


def read_config(path: str | Path, overrides: tuple[str, ...] = ()) -> Config:
    """The settings of a TOML (or saved JSON) file with `section.key=value` overrides, values in TOML notation.

    Raises ValueError naming the file, the key and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ValueError(
            f"no configuration {path}: expected a TOML file, such as configs/apn-mini.toml of the project's checkout "
            "(an installed package has none)"
        ) from error
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
        problems = []
        for one in error.errors():
            key = _key(one["loc"])
            unknown = one["type"] == "extra_forbidden"
            said = one["msg"].removeprefix("Value error, ")  # before what our own checks say
            problem = _no_such(key, settings, values) if unknown else f"{said}{_found(one['input'])}"
            problems.append(f"{key}: {problem}" if key else problem)
        raise ValueError(f"{where}: {'; '.join(problems)}") from error


def _no_such(key: str, settings: type[BaseModel], values: dict[str, Any]) -> str:
    known = _keys(settings, architecture_of(values.get("model", {})))
    near = get_close_matches(key, [name for name in known if name != key], n=1)
    return "no such setting" + (f", did you mean {near[0]}?" if near else "")


def _keys(annotation: Any, architecture: str, key: str = "") -> Iterator[str]:
    """`section.key` of all settings of a model, or of any model that a setting may be: of networks, the one named."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        parts = get_args(annotation)
        if not any(isinstance(part, Tag) and part.tag != architecture for part in parts):
            for part in parts:
                yield from _keys(part, architecture, key)
        return
    for name, field in annotation.model_fields.items():
        whole = f"{key}.{name}" if key else name
        yield whole
        yield from _keys(field.annotation, architecture, whole)


def _found(value: Any) -> str:
    """The value that does not fit, where it is short; it may come from `--set` rather than from the file."""
    return f", found {value!r}" if isinstance(value, str | int | float | list) and len(repr(value)) <= 80 else ""


def _key(location: tuple[int | str, ...]) -> str:
    """`section.key` as the file has it: pydantic puts the chosen class of `[model]` in between."""
    tagged = location[:1] == ("model",) and len(location) > 1 and location[1] in ARCHITECTURES
    return ".".join(map(str, location[:1] + location[2:] if tagged else location))


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
