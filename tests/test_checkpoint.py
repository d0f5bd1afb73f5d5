"""A checkpoint gives back what was saved, survives an interrupted save, and says what is wrong with it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import noise, tiny_config, tiny_model

import apn.checkpoint
from apn.backends import WEIGHTS_FOLDER
from apn.checkpoint import (
    load_model,
    load_state,
    load_weights,
    read_checkpoint_config,
    read_training,
    save_checkpoint,
)
from apn.config import Config, LossConfig
from apn.models.apn import APN, APNOutput

CONFIG = Config(name="tiny", model=tiny_config(bands="soft"), loss=LossConfig(semantic_teacher="resnet18"))


def saved(folder: Path, seed: int = 0) -> APN:
    model = tiny_model(seed, bands="soft")
    save_checkpoint(folder, model, CONFIG, {"step": seed}, {"numbers": torch.arange(3), "list": [1, {"a": 2}]})
    return model


def assert_holds(folder: Path, model: APN) -> None:
    found = load_model(folder).state_dict()
    assert found.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value), name


def test_round_trip(tmp_path: Path) -> None:
    model, folder = saved(tmp_path / "last", seed=7), tmp_path / "last"
    assert_holds(folder, model)
    assert read_checkpoint_config(folder) == CONFIG
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert read_training(folder) == {"step": 7, "sha256": digest}
    state = load_state(folder)
    assert state["numbers"].tolist() == [0, 1, 2]
    assert state["list"] == [1, {"a": 2}]
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_loaded_model_rests_and_computes_the_same(tmp_path: Path) -> None:
    model, image = saved(tmp_path / "last").eval(), noise(2)
    loaded = load_model(tmp_path / "last")
    assert not any(module.training for module in loaded.modules())
    with torch.inference_mode():
        output = loaded(image)
        assert isinstance(output, APNOutput)
        assert torch.equal(output.logits, model(image).logits)


def test_loading_never_fetches_pretrained_weights(tmp_path: Path) -> None:
    """A checkpoint that was trained from ImageNet weights opens without the internet or the weight package."""
    config = CONFIG.model_copy(update={"model": tiny_config(bands="soft", pretrained=True, pretrained_irrelevant=True)})
    model = tiny_model(bands="soft")
    save_checkpoint(tmp_path / "last", model, config, {})
    assert_holds(tmp_path / "last", model)  # resnet10_narrow has no pretrained weights: asking for them would fail


@pytest.mark.parametrize("moment", ["save_file", "sha256", "torch.save", "rename"])
def test_interrupted_save_leaves_the_previous_checkpoint(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "last"
    first = saved(folder, seed=1)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def interrupt_second_rename(path: Path, target: Path) -> Path:
        return interrupt() if path.name.endswith("unfinished") else rename(path, target)

    rename = Path.rename
    with monkeypatch.context() as patch:
        if moment == "torch.save":
            patch.setattr(torch, "save", interrupt)
        elif moment == "rename":
            patch.setattr(Path, "rename", interrupt_second_rename)
        else:
            patch.setattr(apn.checkpoint, moment, interrupt)
        with pytest.raises(KeyboardInterrupt):
            saved(folder, seed=2)
    assert_holds(folder, first)
    assert read_training(folder)["step"] == 1
    second = saved(folder, seed=2)
    assert_holds(folder, second)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_folder_without_checkpoint_is_described(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"expected model.safetensors and config.json, found notes.txt"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="found nothing"):
        load_model(tmp_path / "gone")


def test_shipped_weights_have_a_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = load_model("apn-mini")
    torch.testing.assert_close(network.state_dict(), load_file(WEIGHTS_FOLDER / "apn-mini" / "model.safetensors"))
    saved(tmp_path / "apn-mini")  # a folder that is here comes first
    assert load_model("apn-mini").state_dict().keys() == tiny_model().state_dict().keys()


def test_broken_files_are_named(tmp_path: Path) -> None:
    saved(tmp_path / "last")
    weights = tmp_path / "last/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot read .*model.safetensors"):
        load_model(tmp_path / "last")
    weights.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*model.safetensors"):
        load_model(tmp_path / "last")
    (tmp_path / "last/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        load_model(tmp_path / "last")


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "last")
    tensors = load_file(tmp_path / "last/model.safetensors")
    tensors["stranger"] = tensors.pop("classifier.0.bias")
    tensors["spatial.artifact_basis"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "last/model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit its config.json") as caught:
        load_weights(tiny_model(), tmp_path / "last")
    for name in ("stranger", "classifier.0.bias", "spatial.artifact_basis"):
        assert name in str(caught.value)


def test_unknown_settings_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "last")
    path = tmp_path / "last/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "green"}))
    with pytest.raises(ValueError, match=r"config.json: colour: "):
        load_model(tmp_path / "last")


def test_resuming_needs_a_state_and_runs_no_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best", tiny_model(bands="soft"), CONFIG, {})
    with pytest.raises(ValueError, match=r"cannot resume from .*best: expected state.pt"):
        load_state(tmp_path / "best")


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        ("save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
        ("torch.save", RuntimeError("unexpected pos 5796160 vs 5796112")),  # what torch says of a full disk
        ("sha256", OSError(28, "No space left on device")),
    ],
)
def test_a_save_without_space_says_where_and_leaves_nothing_half_written(
    moment: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = saved(tmp_path / "last", seed=1)

    def full(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*((torch, "save") if moment == "torch.save" else (apn.checkpoint, moment)), full)
        with pytest.raises(ValueError, match=r"cannot save .*last, where .* MB are free: .*; what .* is still there"):
            saved(tmp_path / "last", seed=2)
    assert_holds(tmp_path / "last", first)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_weights_may_be_read_by_whoever_may_read_the_settings(tmp_path: Path) -> None:
    saved(tmp_path / "last")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "last").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"] == modes["state.pt"]


@pytest.mark.parametrize("size", [0, 1, 100, 600])
def test_a_state_or_facts_cut_off_are_named(size: int, tmp_path: Path) -> None:
    saved(tmp_path / "last")
    state, facts = tmp_path / "last/state.pt", tmp_path / "last/training.json"
    state.write_bytes(state.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"cannot resume from .*last: expected state.pt .* found {size} bytes"):
        load_state(tmp_path / "last")
    facts.write_text(facts.read_text()[: size // 10])
    with pytest.raises(ValueError, match=r"cannot read .*training.json, the facts of a checkpoint"):
        read_training(tmp_path / "last")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(value: float, tmp_path: Path) -> None:
    """Every verdict of theirs would be `unsure`, and every score no number."""
    saved(tmp_path / "last")
    tensors = load_file(tmp_path / "last/model.safetensors")
    tensors["classifier.0.bias"][1] = value
    save_file(tensors, tmp_path / "last/model.safetensors")
    told = (
        r"expected finite numbers, found others in 1 of \d+ tensors, the first classifier.0.bias: its training diverged"
    )
    with pytest.raises(ValueError, match=told):
        load_model(tmp_path / "last")
