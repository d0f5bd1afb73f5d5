"""A run is resumed as the same run, or not at all; a killed one leaves nothing that a later one trips over."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from toy import make_toy, run, toy_config

from apn.checkpoint import load_model, load_state
from apn.config import Config
from apn.data.samples import read_samples, write_manifest
from apn.model_config import ClassifierConfig
from apn.resume import checkpoint_of, require_same_run, run_folder, training_data_sha256
from apn.runfolder import RunFolder
from apn.train import train


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"), 24)


@pytest.fixture(scope="module")
def begun(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun") / "run"
    run(toy_config(toy, steps=2), out)
    return out


def changed(config: Config, section: str, **values: object) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("train", "seed", 1, "train.seed was 0 and is 1; the training data"),  # another seed splits otherwise, too
        ("train", "batch_size", 8, "train.batch_size was 4 and is 8. Set them back, or start a new run"),
        ("data", "balance", "class", "data.balance was 'generator' and is 'class'"),
        ("data", "validation", 0.5, r"the training data \(SHA-256 of their list \w{12}, now \w{12}\)"),
    ],
)
def test_other_batches_are_refused(section: str, name: str, value: object, said: str, toy: Path, begun: Path) -> None:
    config = changed(toy_config(toy, steps=4), section, **{name: value})
    with pytest.raises(ValueError, match=f"cannot resume .*last with other batches than it began with: .*{said}"):
        run(config, begun, resume=begun)


def test_other_data_under_the_same_name_are_refused(toy: Path, begun: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(toy, tmp_path / "moved")
    shutil.copytree(begun, tmp_path / "run")
    config = changed(toy_config(toy, steps=3), "data", train=str(moved))
    assert run(config, tmp_path / "run", resume=tmp_path / "run").step == 3  # the same data elsewhere
    samples = read_samples(moved)
    write_manifest([samples[0]._replace(source="another"), *samples[1:]], moved / "manifest.jsonl")
    with pytest.raises(ValueError, match="the training data"):
        run(changed(config, "train", steps=4), tmp_path / "run", resume=tmp_path / "run")


def test_the_sum_of_the_data_knows_order_labels_origins_and_no_place(toy: Path) -> None:
    samples = read_samples(toy)
    right = training_data_sha256(samples)
    elsewhere = [s._replace(path=Path("/elsewhere") / s.path.relative_to(toy)) for s in samples]
    assert training_data_sha256(elsewhere) == right
    pictured = [s._replace(original=str(samples[0].path)) if s.label else s for s in samples]
    moved = [s._replace(original=str(elsewhere[0].path)) if s.label else s for s in elsewhere]
    assert training_data_sha256(pictured) == training_data_sha256(moved) != right
    for other in (
        samples[::-1],
        samples[1:],
        [samples[0]._replace(label=1 - samples[0].label), *samples[1:]],
        [samples[0]._replace(generator="other"), *samples[1:]],
    ):
        assert training_data_sha256(other) != right


def test_the_sum_of_data_on_two_drives_of_windows_knows_whole_paths(toy: Path, monkeypatch) -> None:
    def refuse(paths: set[str]) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", refuse)
    samples = read_samples(toy)
    elsewhere = [s._replace(path=Path("/elsewhere") / s.path.relative_to(toy)) for s in samples]
    assert training_data_sha256(samples) == training_data_sha256(list(samples)) != training_data_sha256(elsewhere)


def test_what_else_differs_is_said_and_what_may_is_not(toy: Path, begun: Path) -> None:
    config = changed(toy_config(toy, steps=4, learning_rate=1e-3, club_steps=2), "data", workers=3)
    sum_of_begun = json.loads((begun / "last/training.json").read_text())["data_sha256"]
    assert require_same_run(begun / "last", config, sum_of_begun) == [
        "train.learning_rate was 0.002 and is 0.001",
        "train.club_steps was 1 and is 2",
    ]


def test_changed_rates_and_decay_are_followed(toy: Path, begun: Path, tmp_path: Path) -> None:
    """At rates of next to nothing all that learns stays where it was; at these rates it does with a huge decay too."""
    still = {"learning_rate": 1e-12, "basis_learning_rate": 0.0, "club_learning_rate": 1e-12}
    shutil.copytree(begun, tmp_path / "still")
    run(toy_config(toy, steps=3, **still), tmp_path / "still", resume=tmp_path / "still")
    shutil.copytree(begun, tmp_path / "decayed")
    run(toy_config(toy, steps=3, **still, weight_decay=1e11), tmp_path / "decayed", resume=tmp_path / "decayed")

    def learnt(out: Path) -> dict[str, torch.Tensor]:
        model = load_model(out / "last")
        return {**dict(model.named_parameters()), **load_state(out / "last")["clubs"]}

    before, after, decayed = learnt(begun), learnt(tmp_path / "still"), learnt(tmp_path / "decayed")
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    name = "classifier.0.weight"
    torch.testing.assert_close(decayed[name], (1 - 1e-12 * 1e11) * before[name])


def test_an_average_may_begin_and_end_with_a_resumed_run(toy: Path, begun: Path, tmp_path: Path) -> None:
    """Either way the network that learns goes on from where it was, as one that never had another."""
    shutil.copytree(begun, tmp_path / "plain")
    shutil.copytree(begun, tmp_path / "averaged")
    run(toy_config(toy, steps=4), tmp_path / "plain", resume=tmp_path / "plain")
    run(toy_config(toy, steps=3, ema_decay=0.9), tmp_path / "averaged", resume=tmp_path / "averaged")
    state = load_state(tmp_path / "averaged/last")
    first = load_file(tmp_path / "averaged/last/model.safetensors")  # an average of one step is that step
    assert all(torch.equal(first[name], value) for name, value in state["model"].items())
    run(toy_config(toy, steps=4), tmp_path / "averaged", resume=tmp_path / "averaged")
    plain, averaged = (load_file(tmp_path / name / "last/model.safetensors") for name in ("plain", "averaged"))
    assert all(torch.equal(averaged[name], plain[name]) for name in plain)


def test_a_checkpoint_from_before_they_said_what_they_were_trained_on(toy: Path, begun: Path, tmp_path: Path) -> None:
    """It is resumed, with a word of warning; its random numbers are those of the one process there was."""
    shutil.copytree(begun, tmp_path / "old")
    facts = tmp_path / "old/last/training.json"
    facts.write_text(json.dumps({k: v for k, v in json.loads(facts.read_text()).items() if k != "data_sha256"}))
    state = load_state(tmp_path / "old/last")
    torch.save(state | {"rng": state["rng"][0]["cpu"]}, tmp_path / "old/last/state.pt")
    (note,) = require_same_run(tmp_path / "old/last", toy_config(toy, steps=3), "whatever")
    assert note.startswith("its training data cannot be compared")
    shutil.copytree(begun, tmp_path / "new")
    for name in ("old", "new"):
        run(toy_config(toy, steps=3), tmp_path / name, resume=tmp_path / name)
    old, new = (load_file(tmp_path / name / "last/model.safetensors") for name in ("old", "new"))
    assert all(torch.equal(old[name], new[name]) for name in new)


def test_the_warning_is_printed(toy: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "run")
    said = io.StringIO()
    config = toy_config(toy, steps=3, learning_rate=1e-3)
    train(config, tmp_path / "run", resume=tmp_path / "run", accelerator="cpu", console=Console(file=said, width=200))
    assert "resumed with a difference: train.learning_rate was 0.002 and is 0.001" in said.getvalue()


def test_a_save_that_was_killed_between_its_renames_is_found(toy: Path, begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    (out / "last").rename(out / ".last.previous")
    with pytest.raises(ValueError, match="already holds a run"):
        run(toy_config(toy, steps=3), out)
    (out / "last").rename(out / ".last.previous")
    assert checkpoint_of(out) == out / "last"
    assert run(toy_config(toy, steps=3), out, resume=out).step == 3


def test_a_run_goes_on_in_its_own_folder(begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    assert run_folder(None, "name") == Path("runs/name")
    assert run_folder(out, "name") == run_folder(out / "last", "name") == out
    (out / "last").rename(out / ".last.previous")
    assert run_folder(out, "name") == out


def test_another_run_is_not_written_over(toy: Path, begun: Path, tmp_path: Path) -> None:
    for name in ("run", "other"):
        shutil.copytree(begun, tmp_path / name)
    config, other = toy_config(toy, steps=3), tmp_path / "other"
    before = (other / "last/state.pt").stat().st_ino
    with pytest.raises(ValueError, match=r"other already holds another run than .*run/last: choose another --out"):
        run(config, other, resume=tmp_path / "run")
    assert (other / "last/state.pt").stat().st_ino == before
    assert run(config, other, resume=other / "last").step == 3


def test_a_folder_has_one_run_at_a_time(toy: Path, begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    with RunFolder(out).alone(), pytest.raises(ValueError, match=r"run is being written by process \d+ of"):
        run(toy_config(toy, steps=3), out, resume=out)
    assert run(toy_config(toy, steps=3), out, resume=out).step == 3
    assert not (out / ".lock").exists()


def test_fewer_steps_than_are_done_are_refused(toy: Path, begun: Path) -> None:
    with pytest.raises(ValueError, match=r"expected train.steps of at least the 2 that it has done, found 1"):
        run(toy_config(toy, steps=1), begun, resume=begun)


def test_settings_of_another_network_are_named(toy: Path, begun: Path) -> None:
    other = toy_config(toy, steps=3, model={"band_count": 3})
    with pytest.raises(ValueError, match=r"differ from the configuration's: model.band_count was 2 and is 3$"):
        run(other, begun, resume=begun)
    inner = other.model_copy(update={"model": ClassifierConfig(architecture="classifier", pretrained=False)})
    with pytest.raises(ValueError, match=r"configuration's: model.architecture was 'apn' and is 'classifier'$"):
        run(inner, begun, resume=begun)


def test_what_a_killed_run_had_logged_after_its_checkpoint_is_dropped(toy: Path, begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    whole = (out / "log.jsonl").read_text()
    (out / "log.jsonl").write_text(whole + '{"step": 3, "total": 1.0}\n{"step": 4, "to')  # killed in the middle
    run(toy_config(toy, steps=3), out, resume=out)
    lines = (out / "log.jsonl").read_text().splitlines()
    assert lines[: len(whole.splitlines())] == whole.splitlines()
    assert [json.loads(line)["step"] for line in lines if "total" in line] == [1, 2, 3]


def test_a_log_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "total": 2.0}\n{"step": 2, "to\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 2: expected JSON"), RunFolder(tmp_path).open(1):
        pass
