"""Training in 16 bits: which precision, and that pictures reach the network unrounded."""

import pytest
import torch
from torch import nn

from apn.distributed import start
from apn.precision import resolve_precision


class Remembers(nn.Module):
    """A layer that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.given, self.answer = image, self.layer(image)
        return self.answer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_pictures_reach_the_network_as_they_are(precision: str) -> None:
    fabric = start("cpu", precision)
    module = Remembers()
    network, _ = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    image = torch.full((1, 4), 254 / 255)  # not a number that bfloat16 has
    network(image)
    assert torch.equal(module.given, image)
    assert module.answer.dtype == (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)


def test_a_precision_is_found_for_the_processor() -> None:
    assert resolve_precision("32-true") == "32-true"
    assert resolve_precision("bf16-mixed") == "bf16-mixed"
    assert resolve_precision("auto", "mps") == "32-true"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 32-true or bf16-mixed"):
        start("cpu", "16-true")
