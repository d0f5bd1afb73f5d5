"""Training: it learns, repeats itself, resumes exactly, stops with a reason."""

import io
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from safetensors.torch import load_file
from tiny import noise, tiny_config
from torch import nn
from toy import interrupt_at, logged, make_toy, run, toy_config

import apn.losses
import apn.step
import apn.train
from apn.checkpoint import load_model, load_state, read_training
from apn.config import Config, DataConfig
from apn.data.dataset import Batch
from apn.data.samples import read_samples, write_manifest
from apn.model_config import ModelConfig
from apn.models.apn import APN
from apn.models.soft_labels import SoftLabels
from apn.step import NonFiniteLossError, apn_half, build_trainee
from apn.trainingdata import read_splits, spread_loader
from apn.validation import scale_to_unit_spread, score


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: network, CLUB, both optimisers, the random state."""
    weights, expected = (load_file(folder / "last/model.safetensors") for folder in (one, other))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    torch.testing.assert_close(load_state(one / "last"), load_state(other / "last"), rtol=0, atol=0)


# The loop ------------------------------------------------------------------------------------------------------------


def test_learns_a_period_that_no_single_pixel_shows(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, steps=60, batch_size=8, gradient_clip=5.0, validate_every=20)
    result = run(config, tmp_path / "run")
    assert (result.step, result.interrupted) == (60, False)
    loss = logged(tmp_path / "run", "classification")
    assert len(loss) == 60
    assert np.mean(loss[-10:]) < 0.6 * np.mean(loss[:10])
    assert result.metrics["auc"] > 0.95
    assert result.metrics["images"] == 20
    best = read_training(tmp_path / "run/best")
    assert best["metrics"]["auc"] == max(logged(tmp_path / "run", "validation_auc"))
    assert not load_model(tmp_path / "run/best").training


def test_same_seed_same_weights(toy: Path, tmp_path: Path) -> None:
    for name, seed in {"one": 0, "again": 0, "other": 1}.items():
        torch.manual_seed(len(name))  # what ran before must not matter
        run(toy_config(toy, steps=2, seed=seed), tmp_path / name)
    assert_same_run(tmp_path / "one", tmp_path / "again")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(("club_data", "spatial_share"), [("fresh", 0.0), ("fresh", 0.4), ("reuse", 0.0)])
def test_resumed_after_ctrl_c_equals_never_stopped_bit_for_bit(
    club_data: str, spatial_share: float, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"club_data": club_data, "spatial_share": spatial_share}
    config = toy_config(toy, club_steps=2, schedule="cosine", validate_every=2, **changes)
    whole = run(config, tmp_path / "whole")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        stopped = run(config, tmp_path / "parts")
    assert (stopped.step, stopped.interrupted) == (4, True)  # the step was finished, and saved
    assert read_training(tmp_path / "parts/last")["step"] == 4
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    resumed = run(config, tmp_path / "parts", resume=tmp_path / "parts")
    assert resumed == whole
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    for name in ("total", "club_learning", "validation_auc"):
        assert logged(tmp_path / "parts", name) == logged(tmp_path / "whole", name)


def test_a_resumed_run_draws_the_same_random_numbers(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that tosses coins, as one with drop path does."""

    def with_dropout(settings: ModelConfig, *, offline: bool) -> nn.Module:
        model = APN(settings)
        model.spatial.head.insert(1, nn.Dropout(0.5))
        return model

    monkeypatch.setattr(apn.step, "build_network", with_dropout)
    run(toy_config(toy, steps=4), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(1, patch, signal.SIGTERM)
        run(toy_config(toy, steps=4), tmp_path / "parts")
    run(toy_config(toy, steps=4), tmp_path / "parts", resume=tmp_path / "parts" / "last")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def soft_config(toy: Path, head_start: str = "default") -> Config:
    look = {"view": "residual", "backbone": "tf_efficientnet_lite0_stats1", "reference": "median"}
    model = {"spatial_backbone": "tf_efficientnet_lite0_logstats2", "further_looks": [look]}
    config = toy_config(toy, steps=4, ema_decay=0.9, model=model)
    centre = {"soft_labels": True, "soft_label_batches": 6, "soft_label_crops": "centre"}
    parts = {
        "model": config.model.model_copy(update={"head_start": head_start}),
        "loss": config.loss.model_copy(update=centre),
    }
    return config.model_copy(update=parts)


def test_a_run_needs_no_main_thread(toy: Path, tmp_path: Path) -> None:
    """Which alone may say what becomes of a signal; notebooks and servers train in others."""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run, toy_config(toy, steps=1), tmp_path / "run").result()
    assert (result.step, result.interrupted) == (1, False)


@pytest.mark.parametrize("head_start", ["default", "regressions"])
def test_soft_labels_are_fitted_once(
    head_start: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run has those that it began with."""
    config = soft_config(toy, head_start)
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(1, patch)
        run(config, tmp_path / "parts")
    monkeypatch.setattr(apn.train, "fit_soft_labels", None)
    run(config, tmp_path / "parts", resume=tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert logged(tmp_path / "parts", "total") == logged(tmp_path / "whole", "total")


def test_a_run_goes_on_from_its_regressions(toy: Path, tmp_path: Path) -> None:
    """Where heads hold still, what is saved says by its spatial branch what they say."""
    config = soft_config(toy, "regressions")
    train = config.train.model_copy(update={"head_learning_rate": 0.0, "basis_learning_rate": 0.0})
    run(config.model_copy(update={"train": train}), tmp_path / "run")
    network, image = load_model(tmp_path / "run/last").eval(), noise(4)
    soft_labels = SoftLabels(network)
    soft_labels.load_state_dict(load_state(tmp_path / "run/last")["soft_labels"])
    with torch.no_grad():
        found, expected = network.spatial_logits(image).softmax(dim=1), soft_labels(image)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_soft_labels_ask_for_trunks_that_do_not_learn(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy)
    loss = config.loss.model_copy(update={"soft_labels": True})
    with pytest.raises(ValueError, match=r"soft_labels needs frozen trunks .* found NarrowResNet"):
        run(config.model_copy(update={"loss": loss}), tmp_path / "run")


def test_a_run_that_cannot_begin_leaves_no_folder(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, steps=1)
    nowhere = config.model_copy(update={"data": config.data.model_copy(update={"train": str(tmp_path / "nowhere")})})
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(ValueError, match="does not exist"):
            run(nowhere, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_run_is_not_overwritten_nor_resumed_as_another(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, steps=1)
    run(config, tmp_path / "run")
    with pytest.raises(ValueError, match=r"already holds a run: go on with --resume .*run"):
        run(config, tmp_path / "run")
    other = toy_config(toy, steps=2, model={"band_count": 3})
    with pytest.raises(ValueError, match=r"cannot resume .*last: its \[model\] and \[loss\] settings differ"):
        run(other, tmp_path / "run", resume=tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected state\.pt"):
        run(config, tmp_path / "run", resume=tmp_path / "run" / "best")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_diverges_stops_the_run_by_name_and_step(
    value: float, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors, right = iter([1.0, 1.0, 1.0, value]), apn.losses.bands_loss
    monkeypatch.setattr(apn.losses, "bands_loss", lambda *arguments: right(*arguments) * next(factors))
    with pytest.raises(NonFiniteLossError, match=r"loss term band_order is not finite at step 3: lower train.learn"):
        run(toy_config(toy, save_every=2), tmp_path / "run")
    assert read_training(tmp_path / "run/last")["step"] == 2
    weights = load_file(tmp_path / "run/last/model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("whose", ["model", "clubs"])
def test_weights_that_diverge_do_not_replace_a_good_checkpoint(
    whose: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a gradient that is not finite leaves them, while the loss of their step still was."""
    half = apn.step.apn_half

    def spoiling(fabric: Any, trainee: Any, batch: Any, config: Any, step: int) -> Any:
        found = half(fabric, trainee, batch, config, step)
        if step == 3:  # the fourth, after which a checkpoint is due
            next(getattr(trainee, whose).parameters()).data[..., 0] = float("nan")
        return found

    monkeypatch.setattr(apn.step, "apn_half", spoiling)
    config = toy_config(toy, save_every=2, club_steps=0)
    with pytest.raises(
        NonFiniteLossError, match=r"1 tensors of weights, the first .*, are not finite after step 4: lower"
    ):
        run(config, tmp_path / "run")
    assert read_training(tmp_path / "run/last")["step"] == 2
    monkeypatch.setattr(apn.step, "apn_half", half)
    assert run(config, tmp_path / "run", resume=tmp_path / "run").step == 6


def test_club_that_diverges_is_named(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apn.step, "club_learning_loss", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(NonFiniteLossError, match="loss term club_learning is not finite at step 0"):
        run(toy_config(toy), tmp_path / "run")


def test_the_spatial_branch_learns_alone_for_its_share_of_the_run(toy: Path, tmp_path: Path) -> None:
    run(toy_config(toy, steps=4, spatial_share=0.5), tmp_path / "run")
    assert len(logged(tmp_path / "run", "classification")) == 4
    assert len(logged(tmp_path / "run", "information")) == len(logged(tmp_path / "run", "club_learning")) == 2


@pytest.mark.parametrize("decay", [None, 0.5])
def test_in_the_end_the_last_layer_is_scaled_and_nothing_else(toy: Path, tmp_path: Path, decay: float | None) -> None:
    config = toy_config(toy, steps=3, ema_decay=decay, unit_spread=True)
    run(toy_config(toy, steps=3, ema_decay=decay), tmp_path / "as it is")
    run(config, tmp_path / "scaled")
    plain, scaled = (load_file(tmp_path / name / "last/model.safetensors") for name in ("as it is", "scaled"))
    ratios = {name: (scaled[name] / plain[name]).flatten() for name in ("classifier.6.weight", "classifier.6.bias")}
    assert all(torch.equal(scaled[name], plain[name]) for name in plain.keys() - ratios.keys())
    factors = torch.cat(list(ratios.values()))
    torch.testing.assert_close(factors, factors[:1].expand_as(factors))
    assert abs(float(factors[0]) - 1) > 0.1
    loader = spread_loader(config, read_splits(config.data, 0).train)
    logits, labels = score(load_model(tmp_path / "scaled/last"), loader)
    assert len(labels) == 40 * 4
    assert (logits[:, 1] - logits[:, 0]).std() == pytest.approx(1, rel=5e-3)  # a band edge may round otherwise


def test_the_best_checkpoint_is_scaled_too_and_the_run_goes_on_as_it_was(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    areas = iter([0.9, 0.6, 0.9, 0.6])  # the first validation is the best
    monkeypatch.setattr(apn.train, "validate", lambda *_: {"auc": next(areas), "balanced_accuracy": 0.5, "images": 20})
    config = toy_config(toy, steps=4, unit_spread=True, validate_every=2)
    run(toy_config(toy, steps=4, validate_every=2), tmp_path / "as it is")
    run(config, tmp_path / "scaled")
    loader = spread_loader(config, read_splits(config.data, 0).train)
    for name in ("best", "last"):
        logits, _ = score(load_model(tmp_path / "scaled" / name), loader)
        assert (logits[:, 1] - logits[:, 0]).std() == pytest.approx(1, rel=5e-3)
        plain, scaled = (load_file(tmp_path / one / name / "model.safetensors") for one in ("as it is", "scaled"))
        assert all(torch.equal(scaled[key], plain[key]) for key in plain if not key.startswith("classifier.6"))


@pytest.mark.parametrize("decay", [None, 0.5])
def test_a_scaled_run_that_is_given_more_steps_equals_one_that_had_them(
    toy: Path, tmp_path: Path, decay: float | None
) -> None:
    config = toy_config(toy, steps=4, ema_decay=decay, unit_spread=True)
    run(config, tmp_path / "whole")
    run(toy_config(toy, steps=2, ema_decay=decay, unit_spread=True), tmp_path / "parts")
    run(config, tmp_path / "parts", resume=tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_network_that_always_says_the_same_stays_as_it_is(toy: Path) -> None:
    config = toy_config(toy)
    model = APN(tiny_config())
    nn.init.zeros_(model.classifier[-1].weight)  # type: ignore[arg-type]
    loader = spread_loader(config, read_splits(config.data, 0).train)
    assert scale_to_unit_spread(model, loader) == 0
    assert model.classifier[-1].weight.eq(0).all()


# Data ----------------------------------------------------------------------------------------------------------------


def test_validation_shares_no_group_with_training(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, steps=1)
    splits = read_splits(config.data, config.train.seed)
    train_groups, held_out = ({sample.split_group for sample in part} for part in splits[:2])
    assert len(train_groups) == 15
    assert len(held_out) == 5
    assert not train_groups & held_out
    assert (len(splits.train), len(splits.validation), splits.test) == (60, 20, [])
    run(config, tmp_path / "run")
    for name, part in {"train": splits.train, "validation": splits.validation}.items():
        assert read_samples(tmp_path / "run" / f"{name}.jsonl") == part
    assert read_training(tmp_path / "run/last")["data"] == {"train": 60, "validation": 20, "test": 0, "quarantined": 0}


def test_validation_on_one_class_has_no_auc_and_says_so_first(toy: Path, tmp_path: Path) -> None:
    samples = read_samples(toy)
    few = [sample for sample in samples if not sample.label] + [sample for sample in samples if sample.label][:1]
    write_manifest(few, tmp_path / "few.jsonl")
    config = toy_config(toy, steps=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"train": str(tmp_path / "few.jsonl")})})
    said = io.StringIO()
    found = apn.train.train(config, tmp_path / "run", accelerator="cpu", console=Console(file=said, width=200))
    assert found.metrics == {"images": 10}
    assert "validation: images of one class have no AUC, so there will be no best/" in said.getvalue()
    assert "step 1: validation no AUC of one class (10 images)" in said.getvalue()
    for file in ("log.jsonl", "last/training.json"):
        assert "NaN" not in (tmp_path / "run" / file).read_text()  # which JSON has not


def test_data_that_do_not_serve(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training data: set data\.train to a folder with real/ and generated/"):
        read_splits(DataConfig(), 0)
    (tmp_path / "folds.json").write_text('{"night": {"left_out_generators": [], "left_out_real_sources": []}}')
    folds = {"train": str(toy), "folds": str(tmp_path / "folds.json")}
    with pytest.raises(ValueError, match="no fold 'day': expected one of night"):
        read_splits(DataConfig(**folds, leave_out_fold="day"), 0)
    one_class = [sample for sample in read_samples(toy) if sample.label]
    write_manifest(one_class, tmp_path / "one.jsonl")
    with pytest.raises(ValueError, match=r"in .*one\.jsonl, found 0 real and 40 generated"):  # before any is held out
        read_splits(DataConfig(train=str(tmp_path / "one.jsonl"), validation=0.25), 0)


def test_the_step_that_leaves_one_class_alone_is_named(toy: Path, tmp_path: Path) -> None:
    """What the user has is fine, and a count of it would not say so."""
    samples = read_samples(toy)
    named = [sample._replace(generator="toy" if sample.label else "") for sample in samples]
    write_manifest(named, tmp_path / "all.jsonl")
    (tmp_path / "folds.json").write_text('{"day": {"left_out_generators": ["toy"], "left_out_real_sources": []}}')
    data = DataConfig(train=str(tmp_path / "all.jsonl"), folds=str(tmp_path / "folds.json"))
    with pytest.raises(ValueError, match=r"in what fold 'day' leaves of .*all\.jsonl, found 0 real and 0 generated"):
        read_splits(data.model_copy(update={"leave_out_fold": "day"}), 0)

    (tmp_path / "broken.png").write_bytes(b"not a picture")
    broken = samples[-1]._replace(path=tmp_path / "broken.png", label=1, split_group="broken")
    write_manifest([*(sample for sample in samples if not sample.label), broken], tmp_path / "broken.jsonl")
    data = DataConfig(train=str(tmp_path / "broken.jsonl"), quarantine=True)
    with pytest.raises(ValueError, match=r"in the files of .*broken\.jsonl that decode, found 40 real and 0 generated"):
        read_splits(data, 0)

    few = [sample for sample in samples if not sample.label] + [sample for sample in samples if sample.label][:1]
    write_manifest(few, tmp_path / "few.jsonl")
    with pytest.raises(ValueError, match=r"in what data\.validation = 0\.9 leaves of .*few\.jsonl, found . real and 0"):
        read_splits(DataConfig(train=str(tmp_path / "few.jsonl"), validation=0.9), 0)


def test_unreadable_files_are_listed_where_quarantine_is_asked_for(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    broken = read_samples(toy)[0]._replace(path=tmp_path / "broken.png", split_group="broken")
    write_manifest([*read_samples(toy), broken], tmp_path / "all.jsonl")
    splits = read_splits(DataConfig(train=str(tmp_path / "all.jsonl"), quarantine=True), 0)
    assert [sample.path for sample, _ in splits.quarantined] == [tmp_path / "broken.png"]
    assert len(splits.train) + len(splits.validation) == 80


def test_the_average_of_weights_follows_torchs_recursion_and_is_what_is_saved(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, steps=3, ema_decay=0.75)
    trainee = build_trainee(config)
    assert trainee.average is not None
    name = "classifier.0.weight"
    fabric, expected = Fabric(accelerator="cpu", devices=1), None
    for step in range(3):
        batch = Batch(noise(4, seed=step), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        apn_half(fabric, trainee, batch, config, step)
        weight = trainee.model.get_parameter(name).detach().clone()
        expected = weight if expected is None else 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(trainee.shipped.get_parameter(name), expected)
    assert not torch.equal(trainee.shipped.get_parameter(name), trainee.model.get_parameter(name))

    run(config, tmp_path / "run")
    state, saved = load_state(tmp_path / "run/last"), load_file(tmp_path / "run/last/model.safetensors")
    torch.testing.assert_close(saved[name], state["average"]["module." + name])
    assert not torch.equal(saved[name], state["model"][name])


def test_a_run_with_an_average_resumes_bit_for_bit(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, steps=4, ema_decay=0.9, save_every=2)
    run(config, tmp_path / "whole")
    run(toy_config(toy, steps=2, ema_decay=0.9), tmp_path / "half")
    run(config, tmp_path / "half", resume=tmp_path / "half")
    whole, half = (load_file(tmp_path / name / "last/model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(whole[name], half[name]) for name in whole)
