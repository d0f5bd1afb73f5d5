"""From settings to a network: APN or one of the baselines, all of one interface.

A network maps float RGB (B, 3, H, W) in [0, 1] to a tuple with `logits` (B, 2); `irrelevant=False` leaves out what
only training needs. Its attribute `config` holds its settings.
"""

from apn.model_config import AnyModelConfig, ModelConfig
from apn.models.apn import APN
from apn.models.backbones import NoWeightsError, pretrained_source
from apn.models.baselines import Baseline, build_baseline

Network = APN | Baseline
APN_WEIGHTS = ("pretrained", "pretrained_artifact", "pretrained_irrelevant")  # settings that ask for ImageNet's


def build_network(config: AnyModelConfig, *, offline: bool = False) -> Network:
    """The network of these settings. offline: fetch no pretrained weights, a checkpoint will give them all.

    Raises ValueError where a backbone does not exist or its weights cannot be had.
    """
    try:
        if isinstance(config, ModelConfig):
            return APN(config.model_copy(update=dict.fromkeys(APN_WEIGHTS, False) if offline else {}))
        return build_baseline(config, offline=offline)
    except NoWeightsError as error:
        asked = (name for name in (*APN_WEIGHTS, "gradient_pretrained") if getattr(config, name, False))
        settings = " ".join(f"--set model.{name}=false" for name in asked)
        raise NoWeightsError(f"{error}: {settings}") from error


def starting_weights(config: AnyModelConfig) -> str:
    """Where the backbone starts from: "random", a package, or timm; recorded beside trained weights."""
    backbone = config.spatial_backbone if isinstance(config, ModelConfig) else config.backbone
    return pretrained_source(backbone, config.pretrained)
