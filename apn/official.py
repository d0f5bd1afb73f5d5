"""Official checkpoints: their names <-> ours, and reading one safely.

Source: the public state dict of the official model, listed in tests/golden/official_state_dict.json: "spital" is its
spelling of spatial, `proposaler_1` serves the amplitude and `_2` the phase, `generative` is artifact, `semantic`
irrelevant.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from apn.checkpoint import not_finite, save_checkpoint
from apn.config import Config
from apn.model_config import ModelConfig
from apn.models.apn import APN

# Applied in order to an official name; what matches none keeps its name.
RENAMES = [
    (r"^spital_branch\.space_base\.base\.generative_base$", "spatial.artifact_basis"),
    (r"^spital_branch\.space_base\.base\.semantic_base$", "spatial.irrelevant_basis"),
    (r"^spital_branch\.backbone\.classifier\.0\.", "spatial.backbone.head.norm."),
    (r"^spital_branch\.backbone\.(?:classifier\.2|fc\.0)\.", "spatial.head.0."),
    (r"^spital_branch\.backbone\.(?:classifier\.4|fc\.2)\.", "spatial.head.2."),
    (r"^spital_branch\.backbone\.features\.0\.", "spatial.backbone.stem."),
    (r"^spital_branch\.backbone\.", "spatial.backbone."),
    (r"^frequency_branch\.proposaler_1\.", "frequency.amplitude_proposer."),
    (r"^frequency_branch\.proposaler_2\.", "frequency.phase_proposer."),
    (r"^frequency_branch\.generative_head\.", "frequency.artifact_encoder."),
    (r"^frequency_branch\.semantic_head\.", "frequency.irrelevant_encoder."),
    (r"^frequency_branch\.p_pred\.atten\.", "frequency.band_weights.attention."),
    (r"^frequency_branch\.p_pred\.", "frequency.band_weights."),
    (r"^classificator_generative\.", "classifier."),
    (r"\.x_proposaler\.", ".rows."),
    (r"\.y_proposaler\.", ".columns."),
    (r"\.freq_conv\.conv_body\.", ".bottlenecks."),
    (r"\.freq_conv\.last_conv\.", ".collapse."),
    (r"\.head_p\.", ".confidence_head."),
    (r"\.head_c\.", ".edges_head."),
    (r"(_encoder)\.0\.", r"\1.trunk."),
    (r"(_encoder)\.2\.", r"\1.project."),
]
# torchvision's ConvNeXt block, inside stage n of `features.<n>.<block>`, to timm's.
CONVNEXT_BLOCK = {"block.0": "conv_dw", "block.2": "norm", "block.3": "mlp.fc1", "block.5": "mlp.fc2"}
CONVNEXT_WIDTHS = {128: "convnext_base", 192: "convnext_large"}  # tiny and small share a width: told by depth


def our_name(official: str) -> str:
    """Our name of an official parameter or buffer."""
    name = official.removeprefix("module.")
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^(spatial\.backbone)\.features\.(\d+)\.(\d+)\.?(.*)$", _convnext_name, name)


def _convnext_name(match: re.Match[str]) -> str:
    prefix, layer, part, rest = match[1], int(match[2]), match[3], match[4]
    if layer % 2 == 0:  # features.2, .4, .6 shrink between the stages features.1, .3, .5, .7
        return f"{prefix}.stages.{layer // 2}.downsample.{part}.{rest}"
    if rest == "layer_scale":
        rest = "gamma"
    for theirs, ours in CONVNEXT_BLOCK.items():
        rest = re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", rest)
    return f"{prefix}.stages.{layer // 2}.blocks.{part}.{rest}"


def official_config(state: Mapping[str, Tensor]) -> ModelConfig:
    """The model that the keys and shapes of an official state dict describe.

    Raises ValueError where they describe none that can be imported.
    """
    names = {name.removeprefix("module."): value for name, value in state.items()}
    prior = names.get("frequency_branch.proposaler_1.x_proposaler.prior")
    basis = names.get("spital_branch.space_base.base.generative_base")
    rows = names.get("frequency_branch.proposaler_1.x_proposaler.neck.0.weight")
    if prior is None or basis is None or rows is None:
        found = ", ".join(list(names)[:3]) or "nothing"
        raise ValueError(
            f"not an official APN state dict: expected frequency_branch.* and spital_branch.* keys, found {found}, ..."
        )
    return ModelConfig(
        image_size=rows.shape[0],
        embedding_dim=basis.shape[1],
        band_count=prior.shape[0],
        band_encoder=_resnet_name(names, "frequency_branch.generative_head.0"),
        spatial_backbone=_backbone_name(names),
        pretrained=False,
        pretrained_irrelevant=False,
        channel_order="bgr",
    )


def _backbone_name(names: Mapping[str, Tensor]) -> str:
    prefix = "spital_branch.backbone"
    if f"{prefix}.conv1.weight" in names:
        return _resnet_name(names, prefix)
    stem = names.get(f"{prefix}.features.0.0.weight")
    if stem is None or f"{prefix}.features.1.0.layer_scale" not in names:
        found = sorted({".".join(name.split(".")[:4]) for name in names if name.startswith(prefix)})[:3]
        raise ValueError(
            f"cannot import this spatial backbone: expected torchvision's ConvNeXt or ResNet, found {found}"
        )
    if stem.shape[0] == 96:
        return "convnext_small" if f"{prefix}.features.5.26.layer_scale" in names else "convnext_tiny"
    return CONVNEXT_WIDTHS[stem.shape[0]]


def _resnet_name(names: Mapping[str, Tensor], prefix: str) -> str:
    blocks = [
        len({n.split(".")[prefix.count(".") + 2] for n in names if n.startswith(f"{prefix}.layer{i}.")})
        for i in (1, 2, 3, 4)
    ]
    bottleneck = f"{prefix}.layer1.0.conv3.weight" in names
    known: dict[tuple[bool, tuple[int, ...]], str] = {
        (False, (2, 2, 2, 2)): "resnet18",
        (False, (3, 4, 6, 3)): "resnet34",
        (True, (3, 4, 6, 3)): "resnet50",
        (True, (3, 4, 23, 3)): "resnet101",
    }
    name = known.get((bottleneck, tuple(blocks)))
    if name is None:
        raise ValueError(
            f"cannot import {prefix}: expected a ResNet-18, -34, -50 or -101, found {blocks} blocks a stage"
        )
    return name


def import_official(state: Mapping[str, Tensor]) -> APN:
    """Our model, in evaluation mode, with the weights of an official state dict.

    Raises ValueError that lists every missing key (by our name), unexpected and mis-shaped key (by the official one),
    and every tensor with a number that is not finite.
    """
    model = APN(official_config(state))
    own = model.state_dict()
    theirs = {our_name(name): (name, value) for name, value in state.items()}
    for name, (official, value) in theirs.items():  # layer scale is (N, 1, 1) there, (N,) here
        if name.endswith(".gamma"):
            theirs[name] = (official, value.flatten())
    problems = [f"missing: {name} (ours)" for name in own if name not in theirs]
    problems += [f"unexpected: {official}" for name, (official, _) in theirs.items() if name not in own]
    problems += [
        f"shape: {official}: expected {tuple(own[name].shape)}, found {tuple(value.shape)}"
        for name, (official, value) in theirs.items()
        if name in own and own[name].shape != value.shape
    ]
    problems += [f"not finite: {official}, of a training that diverged" for official in not_finite(state)]
    if problems:
        raise ValueError(
            f"{len(problems)} keys do not fit the official model, nothing was written:\n  " + "\n  ".join(problems)
        )
    model.load_state_dict({name: value for name, (_, value) in theirs.items()})
    return model.eval()


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The state dict of an official .pth file, `{"model": state_dict, ...}` or the state dict itself.

    Only tensors are read. Raises ValueError for a file that holds anything else, or is no checkpoint.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"no file {path}: expected an official checkpoint (.pth)") from error
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            if file.read(2) not in (b"PK", b"\x80\x02"):  # torch.save's zip, and the pickle it wrote before 1.6
                raise ValueError(f"{path} is not a PyTorch checkpoint: it starts like another kind of file") from error
        raise ValueError(
            f"{path} holds more than tensors, so it could run code and is not opened. "
            "Where you trust it, save the weights alone: "
            f'torch.save({{"model": torch.load("{path.name}", weights_only=False)["model"]}}, "weights.pth"), '
            'with .state_dict() after ["model"] where that is a network, or in its place where the file is one'
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        reason = "it is empty" if path.is_file() and not path.stat().st_size else error
        raise ValueError(f"{path} is not a PyTorch checkpoint: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"a {type(state).__name__}"
        if isinstance(state, dict):
            found += f" of {len(state)} keys, {', '.join(map(str, list(state)[:3])) or 'none'}"
        raise ValueError(f'{path}: expected {{"model": state_dict}} or a state dict of tensors, found {found}')
    return state


def import_checkpoint(file: Path, out: Path) -> ModelConfig:
    """Turns an official file into a checkpoint folder. Raises ValueError, and writes nothing, where it cannot."""
    if out.exists():
        raise ValueError(f"{out} is already there: choose another --out")
    model = import_official(read_official(file))
    training = {"step": 0, "metrics": {}, "command": f"apn import-official {file} --out {out}", "source": file.name}
    save_checkpoint(out, model, Config(name=out.name, model=model.config), training)
    return model.config
