"""Settings of the networks: APN and the earlier methods. The rest, and how settings are read: apn/config.py."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class Settings(BaseModel):
    """A frozen table of settings; an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


BandStart = Literal["narrow", "wide"]
View = Literal["pixels", "residual", "colour-residual"]
Reference = Literal["median", "jpeg"]


class LookConfig(Settings):
    """A further look of the spatial branch at the picture, through a trunk and a head of its own."""

    view: View = Field("pixels", description="what it sees, as the model's `view`")
    backbone: str = Field(description="trunk that sees it, as `spatial_backbone`")
    reference: Reference | None = Field(None, description="what its features are compared with")
    scale: int = Field(1, ge=1, description="the picture is first reduced to means of scale x scale pixels")


class ModelConfig(Settings):
    """The network. Defaults are the paper's; "official" behaviour is the default wherever METHOD has a choice."""

    architecture: Literal["apn"] = "apn"
    image_size: int = Field(224, ge=32, description="side of the square input, pixels")
    embedding_dim: int = Field(256, ge=48, multiple_of=2, description="D, size of each embedding")
    view: View = Field(
        "pixels",
        description="what the branches see: the picture; what a blur takes from it, amplified; or the colour of that",
    )
    band_view: View | None = Field(None, description="what the frequency branch sees; None: the same as `view`")
    spatial_reference: Reference | None = Field(
        None,
        description="the spatial backbone's features are compared with those of the picture after a median filter, "
        "or saved as JPEG; None: as they are (official)",
    )
    band_count: int = Field(15, ge=1, description="K, frequency bands per component")
    band_encoder: str = Field("resnet18", description="trunk that sees each purified or residual image")
    spatial_backbone: str = Field("convnext_base.fb_in1k", description="trunk that sees the image")
    further_looks: tuple[LookConfig, ...] = Field(
        (),
        description="the spatial branch's embedding is the mean of that of `spatial_backbone` and of these; "
        "none: the first alone (official)",
    )
    frequency_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="weight of the frequency branch where the branches' embeddings are averaged; the spatial branch "
        "has the rest",
    )
    pretrained: bool = Field(True, description="start the spatial backbones from ImageNet weights")
    pretrained_artifact: bool = Field(False, description="start the artifact band encoder from ImageNet weights")
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
    band_start: BandStart = Field(
        "narrow",
        description="narrow: bands start their training nearly void, as random weights have it (official); "
        "wide: each over its share of the axis",
    )
    band_suppression: bool = Field(False, description="non-maximum suppression of overlapping bands")
    cut_weakest_bands: bool = Field(True, description="K > 15: weights below the 15th smallest become 0 (official)")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="order the weights expect; input is always RGB")
    head_start: Literal["default", "he", "regressions"] = Field(
        "default",
        description="first weights of the heads: PyTorch's, under which the layers from backbone to logits "
        "shrink the signal (official); He's, which keep its size; or He's and in them the regressions of "
        "loss.soft_labels, which the spatial branch then says from the first step on",
    )
    spatial_normalize: bool = Field(False, description="the weights' own mean and std before the spatial backbone")
    band_normalize: bool = Field(False, description="the same before the band encoders")
    spatial_dropout: float = Field(0.0, ge=0, lt=1, description="share of the spatial backbone's features dropped")

    @model_validator(mode="after")
    def _suppression_has_an_effect(self) -> Self:
        if self.band_suppression and self.bands == "soft":
            raise ValueError('band_suppression is of hard edges: expected bands "hard" or "straight-through" with it')
        return self

    @model_validator(mode="after")
    def _looks_fit(self) -> Self:
        for look in self.further_looks:
            if self.image_size % look.scale:
                raise ValueError(f"expected a look's scale to divide image_size {self.image_size}, found {look.scale}")
        return self

    def looks(self) -> tuple[LookConfig, ...]:
        """All looks of the spatial branch, the first one too."""
        first = LookConfig(view=self.view, backbone=self.spatial_backbone, reference=self.spatial_reference)
        return (first, *self.further_looks)


class BaselineConfig(Settings):
    """What the earlier methods share (apn/models/baselines/, one file each). Their backbones are timm's."""

    image_size: int = Field(224, ge=32, description="side of the square input, pixels")
    backbone: str = Field("resnet50", description="trunk, a timm name")
    pretrained: bool = Field(True, description="start the trunk from ImageNet weights")


class ClassifierConfig(BaselineConfig):
    """ResNet-50, DeiT-S, Swin-T, and CNNSpot by its training: a backbone and one linear layer on the pixels."""

    architecture: Literal["classifier"]


class SpecConfig(BaselineConfig):
    """Spec (AutoGAN, 2019): the classifier sees the log-amplitude spectrum."""

    architecture: Literal["spec"]


class F3NetConfig(BaselineConfig):
    """F3-Net (2020): frequency-aware decomposition and local frequency statistics, two trunks that attend."""

    architecture: Literal["f3net"]
    backbone: str = Field("legacy_xception", description="trunk of both branches: a timm Xception")


class GramNetConfig(BaselineConfig):
    """Gram-Net (2020): Gram matrices of ResNet stages, so that texture counts."""

    architecture: Literal["gramnet"]
    backbone: str = Field("resnet18", description="trunk: a timm ResNet")


class UnivFDConfig(BaselineConfig):
    """UnivFD (2023): a linear layer on a frozen backbone."""

    architecture: Literal["univfd"]
    backbone: str = Field("vit_large_patch14_clip_224.openai", description="frozen trunk, a timm name")


class LGradConfig(BaselineConfig):
    """LGrad (2023): the classifier sees the gradient that a frozen network has at the picture."""

    architecture: Literal["lgrad"]
    gradient_backbone: str = Field("resnet50", description="frozen network whose gradient is taken, a timm name")
    gradient_pretrained: bool = Field(True, description="with its ImageNet weights")


class DIREConfig(BaselineConfig):
    """DIRE (2023): the classifier sees what a diffusion model fails to reconstruct."""

    architecture: Literal["dire"]
    pipeline: str = Field("", description="diffusers pipeline: a folder or a name of the model hub")
    diffusion_steps: int = Field(20, ge=1, description="DDIM steps forth, and as many back")


class NPRConfig(BaselineConfig):
    """NPR (2024): the classifier, a ResNet cut after two stages, sees the differences of neighbouring pixels."""

    architecture: Literal["npr"]
    pretrained: bool = Field(False, description="start the trunk from ImageNet weights")


ARCHITECTURES = ("apn", "classifier", "spec", "f3net", "gramnet", "univfd", "lgrad", "dire", "npr")


def architecture_of(model: Any) -> str:
    """Which class a `[model]` table is; checkpoints from before there were baselines do not say, and are APN's."""
    return model.get("architecture", "apn") if isinstance(model, dict) else getattr(model, "architecture", "")


AnyBaselineConfig = (
    ClassifierConfig | SpecConfig | F3NetConfig | GramNetConfig | UnivFDConfig | LGradConfig | DIREConfig | NPRConfig
)
AnyModelConfig = Annotated[
    Annotated[ModelConfig, Tag("apn")]
    | Annotated[ClassifierConfig, Tag("classifier")]
    | Annotated[SpecConfig, Tag("spec")]
    | Annotated[F3NetConfig, Tag("f3net")]
    | Annotated[GramNetConfig, Tag("gramnet")]
    | Annotated[UnivFDConfig, Tag("univfd")]
    | Annotated[LGradConfig, Tag("lgrad")]
    | Annotated[DIREConfig, Tag("dire")]
    | Annotated[NPRConfig, Tag("npr")],
    Discriminator(
        architecture_of,
        custom_error_type="architecture",
        custom_error_message=f"expected architecture as one of {', '.join(ARCHITECTURES)}",
    ),
]
