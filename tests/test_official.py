"""Official checkpoints: read safely, named as ours, refused as a whole where they do not fit."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_rule import BACKBONE, golden_tensor, official_shapes, official_state
from torch import Tensor

from apn.checkpoint import load_model, read_checkpoint_config, read_training
from apn.official import import_checkpoint, import_official, official_config, our_name, read_official


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return official_state("resnet18")


def meta_state(backbone: str, band_count: int = 15) -> dict[str, Tensor]:
    return {n: torch.empty(shape, device="meta") for n, shape in official_shapes(backbone, band_count).items()}


def test_every_official_key_has_a_name_of_its_own() -> None:
    names = [our_name(name) for name in official_shapes()]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "official" in name or "spital" in name or "proposaler" in name]


def test_a_file_with_module_prefixes_becomes_the_same_model(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "official.pth"
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, file)
    model = import_official(read_official(file))
    assert not model.training
    assert model.config.spatial_backbone == "resnet18"
    assert model.config.channel_order == "bgr"
    own = model.state_dict()
    assert len(own) == len(state)
    for name, value in state.items():
        assert torch.equal(own[our_name(name)], value)
    first = "frequency.phase_proposer.columns.edges_head.6.bias"
    assert torch.equal(own[first], golden_tensor("frequency_branch.proposaler_2.y_proposaler.head_c.6.bias", (30,)))


def test_a_bare_state_dict_is_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "bare.pth")
    assert read_official(tmp_path / "bare.pth")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("backbone", ["convnext_base", "resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("band_count", [9, 15, 24])
def test_keys_tell_backbone_and_band_count(backbone: str, band_count: int) -> None:
    config = official_config(meta_state(backbone, band_count))
    assert (config.spatial_backbone, config.band_count) == (backbone, band_count)
    assert (config.image_size, config.embedding_dim, config.band_encoder) == (224, 256, "resnet18")
    assert not config.pretrained
    assert not config.pretrained_irrelevant


def test_another_band_count_imports() -> None:
    model = import_official(official_state("resnet18", band_count=4))
    with torch.inference_mode():
        output = model(torch.rand(1, 3, 224, 224), irrelevant=False)
    assert output.proposals.phase.rows.end.shape == (1, 3, 4)
    assert output.band_weights.shape == (1, 4, 1)


def test_all_keys_that_do_not_fit_are_named_at_once_and_nothing_is_written(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    broken = dict(state)
    del broken["frequency_branch.generative_head.2.bias"], broken[BACKBONE + "fc.0.weight"]
    broken["frequency_branch.extra.weight"] = torch.zeros(1)
    broken["classificator_generative.0.weight"] = torch.zeros(128, 255)
    torch.save({"model": broken}, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="4 keys do not fit") as caught:
        import_checkpoint(tmp_path / "broken.pth", tmp_path / "out")
    for part in (
        "missing: frequency.artifact_encoder.project.bias",
        "missing: spatial.head.0.weight",
        "unexpected: frequency_branch.extra.weight",
        "shape: classificator_generative.0.weight: expected (128, 256), found (128, 255)",
    ):
        assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pth"]


def test_import_writes_a_checkpoint_that_computes_the_same(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": state}, tmp_path / "official.pth")
    config = import_checkpoint(tmp_path / "official.pth", tmp_path / "out")
    assert config == read_checkpoint_config(tmp_path / "out").model
    assert read_training(tmp_path / "out")["source"] == "official.pth"
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = import_official(state)(image, irrelevant=False).logits
        assert torch.equal(load_model(tmp_path / "out")(image, irrelevant=False).logits, expected)
    with pytest.raises(ValueError, match="already there"):
        import_checkpoint(tmp_path / "official.pth", tmp_path / "out")


def test_states_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not an official APN state dict: expected frequency_branch.* found fc.bias"):
        official_config({"fc.bias": torch.zeros(2)})
    odd = {n: v for n, v in meta_state("resnet18").items() if not n.startswith(BACKBONE + "layer4.1")}
    with pytest.raises(ValueError, match=r"expected a ResNet-18, .* found \[2, 2, 2, 1\] blocks a stage"):
        official_config(odd)
    swin = {n.replace(BACKBONE, BACKBONE + "patch."): v for n, v in meta_state("resnet18").items()}
    with pytest.raises(ValueError, match="expected torchvision's ConvNeXt or ResNet, found"):
        official_config(swin)


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("extra", ["trap", "namespace"])
def test_a_pickle_with_more_than_tensors_is_not_opened(extra: str, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = {"model": {"a": torch.zeros(1)}, "args": Trap(sprung) if extra == "trap" else argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "risky.pth")
    with pytest.raises(ValueError, match=r"risky.pth holds more than tensors.*save the weights alone"):
        read_official(tmp_path / "risky.pth")
    assert not sprung.exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*gone.pth"):
        read_official(tmp_path / "gone.pth")
    for name, content in {"text.pth": b"<html>404</html>", "empty.pth": b"", "cut.pth": b"PK\x03\x04 cut"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a PyTorch checkpoint"):
            read_official(tmp_path / name)
    with pytest.raises(ValueError, match=r"empty.pth is not a PyTorch checkpoint: it is empty"):
        read_official(tmp_path / "empty.pth")
    for content in ({"model": {"a": 1}}, {"model": {}}, torch.zeros(1)):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match=r"odd.pth: expected .* a state dict of tensors, found"):
            read_official(tmp_path / "odd.pth")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="found a dict of 2 keys, state_dict, epoch"):
        read_official(tmp_path / "odd.pth")


def test_weights_of_a_training_that_diverged_are_named(state: dict[str, Tensor]) -> None:
    name = "classificator_generative.0.bias"
    with pytest.raises(ValueError, match=rf"1 keys do not fit .*\n  not finite: {name}, of a training that diverged"):
        import_official({**state, name: state[name] / 0})
