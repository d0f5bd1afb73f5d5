"""What a training step keeps in memory, from the sizes of its tensors; nothing is computed, no GPU is needed.

    python bench/training_memory.py [--network base mini] [--batch 24]

Counted: weights, gradients and AdamW's two moments in 32 bits; what autograd keeps between the two passes, every
storage once, weights left out; with recomputed bands what one encoder needs while it is computed again. Not counted:
what a layer uses for a moment, the allocator's waste, the CUDA libraries.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from apn.config import Config, read_config
from apn.losses import build_clubs, loss_terms
from apn.model_config import ModelConfig
from apn.models.apn import APN
from apn.recompute import recompute_bands

CONFIGS = Path(__file__).parent.parent / "configs"
STATE_BYTES = 16  # a parameter: weight, gradient, two moments


class Kept:
    """Sums up what autograd keeps while it is counting."""

    def __init__(self, model: APN) -> None:
        self._known = {p.untyped_storage()._cdata for p in model.parameters()}
        self._held: list[Tensor] = []
        self.bytes = 0

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._held.append(tensor)  # so that no other storage gets its place
            self.bytes += storage.nbytes()
        return tensor

    @contextmanager
    def counting(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor):
            yield


def sizes_only(module: nn.Module, mode: FakeTensorMode) -> None:
    """Weights and buffers become tensors without numbers."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = mode.from_tensor(weight)  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = mode.from_tensor(buffer)


def step_bytes(config: Config, batch: int, *, half: bool, recompute: bool) -> dict[str, int]:
    """Bytes by kind at the end of the forward pass, and of one encoder that is computed again."""
    settings = config.model
    assert isinstance(settings, ModelConfig), "APN's memory"
    model = APN(settings).train()
    clubs = build_clubs(config.loss, settings.embedding_dim).requires_grad_(False)
    with FakeTensorMode() as mode:
        for module in (model, clubs):
            sizes_only(module, mode)
        size, bands = settings.image_size, settings.band_count
        image, label = torch.rand(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
        images = torch.rand(batch, bands, 3, size, size)
        encoder, step = Kept(model), Kept(model)
        precision = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
        with precision, encoder.counting():
            model.frequency.artifact_encoder(images)
        if recompute:
            recompute_bands(model)
        with precision, step.counting():
            terms = loss_terms(model, model(image), label, clubs, config.loss)
            torch.stack(list(terms.values())).sum()
        found = {"state": STATE_BYTES * sum(p.numel() for p in model.parameters()), "kept": step.bytes}
        return found | ({"one encoder": encoder.bytes} if recompute else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=["base", "mini"], choices=("base", "mini"))
    parser.add_argument("--batch", type=int, default=24)
    options = parser.parse_args()
    print("| network | batch | precision | bands | GB, of which | |\n|---|---|---|---|---|---|")
    for network in options.network:
        fetch = ("model.pretrained=false", "model.pretrained_irrelevant=false")
        config = read_config(CONFIGS / f"apn-{network}.toml", fetch)
        for half in (False, True):
            for recompute in (False, True):
                found = step_bytes(config, options.batch, half=half, recompute=recompute)
                parts = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in found.items())
                row = ("bf16" if half else "fp32", "recomputed" if recompute else "kept")
                total = sum(found.values()) / 1e9
                print(f"| apn-{network} | {options.batch} | {' | '.join(row)} | {total:.1f} | {parts} |")


if __name__ == "__main__":
    main()
