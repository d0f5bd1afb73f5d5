"""Speed and memory of inference on a CUDA GPU, as a Markdown table from one run.

    python bench/inference_cuda.py [--models base,mini] [--batches 1,32] [--repeats 20]

The baseline is the official forward pass restated (bench/restatement.py); ratios are to it, at the same batch size.
images/s: median of the repeats, after two calls to warm up, images on the GPU already. Memory: the most that PyTorch's
tensors took in a call, weights included. Difference: of a logit, to the baseline's on the processor in float32; on the
GPU convolutions round to TF32, which is PyTorch's default. Weights are random for base and what ships for mini.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from restatement import Restatement
from torch import Tensor

from apn.checkpoint import load_model
from apn.config import read_config
from apn.models.apn import APN
from apn.models.detect import DetectOnly

ROOT = Path(__file__).parent.parent
Network = Callable[[Tensor], Tensor]


def compiled(model: APN, dtype: torch.dtype) -> Network:
    """Detection with both trunks compiled."""
    return DetectOnly(model, dtype=dtype, plain=True).compile_trunks()


ROWS: dict[str, Callable[[APN], Network]] = {
    "restatement": Restatement,
    "eager": lambda model: lambda image: model(image, irrelevant=False).logits,
    "detect_only": lambda model: model.detect_only(),
    "detect_only, bf16": lambda model: model.detect_only(dtype=torch.bfloat16),
    "compiled": lambda model: compiled(model, torch.float32),
    "compiled, bf16": lambda model: compiled(model, torch.bfloat16),
}


def load(name: str) -> APN:
    """apn-base with random weights, or the detector that ships; in evaluation mode."""
    if name == "base":
        torch.manual_seed(0)
        config = read_config(ROOT / "configs/apn-base.toml").model
        model = APN(config.model_copy(update={"pretrained": False, "pretrained_irrelevant": False}))
    else:
        loaded = load_model(ROOT / "apn/weights/apn-mini")
        assert isinstance(loaded, APN)
        model = loaded
    return model.eval()


@torch.inference_mode()
def measure(network: Network, image: Tensor, repeats: int) -> tuple[float, float, Tensor]:
    """Images a second, MB, logits (B, 2)."""
    for _ in range(2):
        logits = network(image)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        network(image)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return len(image) / float(np.median(seconds)), torch.cuda.max_memory_allocated() / 2**20, logits.float().cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="base,mini")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here: bench/inference.py measures the processor")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| network | row | batch | images/s | times the baseline | memory, MB | difference |\n|" + "---|" * 7)
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            size = load(name).config.image_size
            image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
            expected = Restatement(load(name))(image[:4])
            base = 0.0
            for row, make in ROWS.items():
                torch.cuda.empty_cache()
                rate, memory, logits = measure(make(load(name).cuda()), image.cuda(), options.repeats)
                base = base or rate
                difference = float((logits[:4] - expected).abs().max())
                cells = (name, row, batch, f"{rate:.1f}", f"{rate / base:.2f}", f"{memory:.0f}", f"{difference:.1g}")
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
