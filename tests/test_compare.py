"""bench/compare.py gives every method the same but its network, and says what it could not run."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from data.trees import save
from safetensors.torch import load_file

from apn.config import Config, read_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare", ROOT / "bench" / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    return module


def test_every_baseline_is_compared_with_apn_mini(compare: ModuleType) -> None:
    names = {path.stem for path in (ROOT / "configs").glob("*.toml")}
    assert set(compare.METHODS) == {"apn-mini", *(name for name in names if not name.startswith("apn-"))}


def test_methods_differ_in_nothing_but_what_is_theirs(compare: ModuleType) -> None:
    configs = {method: compare.cell_config(method, "gan", 10, 3) for method in compare.METHODS}
    mini = read_config(ROOT / "configs/apn-mini.toml")
    assert configs["apn-mini"].train.steps == mini.train.steps  # at most: its runs are those of the shipped recipe
    theirs = dict.fromkeys((*compare.OWN_TRAINING, "steps"))
    for method, config in configs.items():
        own = read_config(ROOT / "configs" / f"{method}.toml")
        assert config.model == own.model.model_copy(update={"image_size": mini.model.image_size})
        assert config.loss == own.loss
        assert config.train.model_dump() | theirs == configs["apn-mini"].train.model_dump() | theirs
        assert method == "apn-mini" or config.train.steps == compare.NEVER
        assert config.train.learning_rate == own.train.learning_rate
        assert (config.train.minutes, config.train.seed, config.data.leave_out_fold) == (10, 3, "gan")
        if method != "cnnspot":
            assert config.data == mini.data.model_copy(update={"leave_out_fold": "gan"})
    assert configs["cnnspot"].data.degradations == mini.data.degradations.model_copy(
        update={"blur": 0.5, "blur_sigma": (0.0, 3.0), "jpeg": 0.5, "jpeg_quality": (30, 100)}
    )


def test_overrides_are_for_all_alike(compare: ModuleType) -> None:
    for method in ("apn-mini", "npr"):
        config = compare.cell_config(method, "gan", 10, 0, ["train.batch_size=4", "model.image_size=64"])
        assert (config.train.batch_size, config.model.image_size) == (4, 64)


@pytest.mark.parametrize("key", ["model.view", "loss.information", "train.learning_rate"])
def test_an_override_that_would_change_nothing_is_refused(
    key: str, compare: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=f"--set {key}: a method's own"):
        compare.cell_config("apn-mini", "gan", 10, 0, ["train.batch_size=4", f"{key}=1"])
    monkeypatch.setattr(sys, "argv", ["compare.py", "--out", "unused", "--set", f"{key}=1"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "Expected data.*, train.* but learning_rate" in capsys.readouterr().err


def offline(compare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(model: Any) -> None:
        if model.pretrained:
            raise ValueError("weights could not be fetched")

    monkeypatch.setattr(compare, "build_network", build)


def test_without_a_model_hub_trunks_start_random_and_frozen_ones_not_at_all(
    compare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(compare, monkeypatch)
    config = compare.with_weights_that_can_be_had(compare.cell_config("resnet50", "gan", 10, 0))
    assert not config.model.pretrained
    for method in ("univfd", "dire"):
        with pytest.raises(ValueError, match="could not be fetched"):
            compare.with_weights_that_can_be_had(compare.cell_config(method, "gan", 10, 0))


def tiny(config: Config) -> Config:
    model = config.model.model_copy(update={"backbone": "test_resnet", "image_size": 64})
    train = config.train.model_copy(update={"steps": 2, "batch_size": 4, "precision": "32-true"})
    return config.model_copy(update={"model": model, "train": train})


def test_cells_become_a_table_and_what_was_not_run_is_listed(
    compare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two methods on two folds of a toy set, in this process; the weights of one cannot be had."""
    build = compare.build_network

    def build_network(model: Any, **options: Any) -> Any:
        if model.architecture == "dire":
            raise ValueError("no diffusion model")
        return build(model, **options)

    monkeypatch.setattr(compare, "build_network", build_network)
    toy = make_toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    right = compare.cell_config
    overrides = [f"data.{k}" for k in (f"train={toy}", f"folds={tmp_path / 'folds.json'}", "aligned=[]", "workers=0")]
    overrides += ["data.aligned_share=0", "data.validation=0", "data.balance=class"]
    monkeypatch.setattr(compare, "cell_config", lambda *arguments: tiny(right(*arguments)))
    folds = ("one", "two")
    cells = [compare.Cell(m, fold, tmp_path / "out" / m / fold) for fold in folds for m in ("npr", "dire")]
    for cell in cells:
        cell.folder.mkdir(parents=True)
        compare.run_cell(cell, 10, 0, overrides, "cpu")
        compare.run_cell(cell, 10, 0, overrides, "cpu")  # done already
    text = compare.tabulate(cells, folds, tmp_path / "out", "Toy")
    assert "| npr | random | 2 | " in text
    assert "Not run:\n\n- dire: no diffusion model\n" in text
    assert text.count("| npr | ") == 1 + 2 * 2
    assert text.count("| shortcut probe | ") == 2
    (scores,) = compare.read_scores([tmp_path / "out/npr.parquet"])
    assert scores.facts.weights == "npr"
    assert scores.subset.present() == ["one", "two"]
    assert scores.generator.present(scores.subset.where("one")) == ["first"]
    weights = [load_file(tmp_path / f"out/npr/{fold}/run/last/model.safetensors") for fold in folds]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])  # each learnt without its fold
    with pytest.raises(SystemExit, match="was run with --minutes 10 --seed 0: choose another --out"):
        compare.refuse_others(cells, 5, 0)


def make_toy(folder: Path) -> Path:
    """Two generators and two real sources, and folds that leave out one of each."""
    for label, names in (("real", ("cat", "dog")), ("generated", ("first", "second"))):
        for i, name in enumerate(names * 6):
            save(folder / "toy" / label / name / f"{i:02}.png", i, label == "generated")
    folds = (
        {"left_out_generators": [g], "left_out_real_sources": [r]} for g, r in (("first", "cat"), ("second", "dog"))
    )
    (folder / "folds.json").write_text(json.dumps(dict(zip(("one", "two"), folds, strict=True))), encoding="utf-8")
    return folder / "toy"
