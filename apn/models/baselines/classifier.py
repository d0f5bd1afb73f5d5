"""A backbone and one linear layer on the pixels: ResNet-50, DeiT-S, Swin-T, and CNNSpot.

Sources: He et al., "Deep residual learning for image recognition", CVPR 2016; Touvron et al., "Training data-efficient
image transformers and distillation through attention", ICML 2021; Liu et al., "Swin Transformer", ICCV 2021; Wang et
al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020. The first three are baselines of
GenImage (Zhu et al., NeurIPS 2023). CNNSpot is ResNet-50 taught with blur and JPEG, each with probability 0.5: that is
its data, so configs/cnnspot.toml says it.
Deviations: two logits and cross entropy in place of one and binary cross entropy (the same function of the features);
CNNSpot's JPEG comes from Pillow alone, not half from OpenCV.
Dimensions: B batch, S side, N backbone features.
"""

from torch import Tensor, nn

from apn.model_config import BaselineConfig
from apn.models.backbones import Normalize, num_features
from apn.models.baselines.base import Baseline, trunk


class Classifier(Baseline):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2). Methods that show the trunk something else override `view`."""

    def __init__(self, config: BaselineConfig, *, offline: bool = False) -> None:
        super().__init__(config)
        self.backbone = trunk(config, offline=offline)
        self.normalize = Normalize(self.backbone)
        self.head = nn.Linear(num_features(self.backbone), 2)

    def view(self, image: Tensor) -> Tensor:
        """What the trunk sees of the image (B, 3, S, S)."""
        return self.normalize(image)

    def classify(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(self.view(image)))
