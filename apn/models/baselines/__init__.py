"""The earlier methods beside APN (docs/baselines.md), one file each, which names its paper and its deviations."""

from collections.abc import Callable

from apn.model_config import AnyBaselineConfig
from apn.models.baselines.base import Baseline, BaselineOutput
from apn.models.baselines.classifier import Classifier
from apn.models.baselines.dire import DIRE
from apn.models.baselines.f3net import F3Net
from apn.models.baselines.gramnet import GramNet
from apn.models.baselines.lgrad import LGrad
from apn.models.baselines.npr import NPR
from apn.models.baselines.spec import Spec
from apn.models.baselines.univfd import UnivFD

__all__ = ["Baseline", "BaselineOutput", "build_baseline"]

CONSTRUCTORS: dict[str, Callable[..., Baseline]] = {
    "classifier": Classifier,
    "spec": Spec,
    "f3net": F3Net,
    "gramnet": GramNet,
    "univfd": UnivFD,
    "lgrad": LGrad,
    "dire": DIRE,
    "npr": NPR,
}


def build_baseline(config: AnyBaselineConfig, *, offline: bool = False) -> Baseline:
    """The network of these settings; offline: without fetching pretrained weights."""
    return CONSTRUCTORS[config.architecture](config, offline=offline)
