"""Aligned fakes in the data of a run: whose photographs train, and which of them may."""

import json
from pathlib import Path

import pytest
from toy import make_toy, toy_config

from apn.config import DataConfig
from apn.data.samples import read_samples, write_manifest
from apn.trainingdata import read_splits


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


def test_fakes_of_held_out_photographs_stay_out_of_training(toy: Path, tmp_path: Path) -> None:
    photographs = [sample for sample in read_samples(toy) if sample.label == 0]
    fakes = [
        s._replace(path=tmp_path / s.path.name, label=1, generator="ae", original=str(s.path)) for s in photographs
    ]
    write_manifest(fakes, tmp_path / "fakes.jsonl")
    aligned = {"aligned": (str(tmp_path / "fakes.jsonl"),), "aligned_share": 0.5}
    config = toy_config(toy).data.model_copy(update=aligned)
    splits = read_splits(config, 0)
    trained = {str(sample.path) for sample in splits.train if sample.label == 0}
    assert {sample.original for sample in splits.train if sample.original} == trained
    assert 0 < len(trained) < len(photographs)
    assert not any(sample.original for sample in read_splits(config.model_copy(update={"aligned_share": 0.0}), 0).train)
    write_manifest([fake._replace(original="") for fake in fakes], tmp_path / "fakes.jsonl")
    with pytest.raises(ValueError, match="original"):
        read_splits(config, 0)
    write_manifest([fake._replace(original=str(tmp_path / "no.png")) for fake in fakes], tmp_path / "fakes.jsonl")
    with pytest.raises(ValueError, match=r"training photographs in .*fakes.jsonl, found 40 of others"):
        read_splits(config, 0)


def test_photographs_of_a_folder_named_from_here_are_known_to_their_fakes(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout spells paths as they were typed; a manifest's are absolute."""
    photographs = [sample for sample in read_samples(toy) if sample.label == 0]
    (tmp_path / "link").symlink_to(toy)
    fakes = [s._replace(path=tmp_path / s.path.name, label=1, original=str(s.path)) for s in photographs]
    write_manifest(fakes, tmp_path / "fakes.jsonl")
    monkeypatch.chdir(tmp_path)
    for folder in ("link/real", "link/generated"):  # without the manifest
        (tmp_path / "data" / folder).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / Path(folder).name).symlink_to(toy / Path(folder).name)
    config = DataConfig(train="data", validation=0.0, aligned=("fakes.jsonl",), aligned_share=0.5)
    splits = read_splits(config, 0)
    originals = [sample.original for sample in splits.train if sample.original]
    assert len(originals) == len(photographs)
    assert set(originals) == {str(sample.path) for sample in splits.train if sample.label == 0}


def test_aligned_fakes_of_a_left_out_generator_or_unreadable_ones_do_not_train(toy: Path, tmp_path: Path) -> None:
    photographs = [sample for sample in read_samples(toy) if sample.label == 0]
    fakes = [
        s._replace(label=1, generator=("ae", "gan")[i % 2], original=str(s.path)) for i, s in enumerate(photographs)
    ]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    fakes[0] = fakes[0]._replace(path=tmp_path / "broken.png")
    write_manifest(fakes, tmp_path / "fakes.jsonl")
    samples = [
        sample._replace(split_group=sample.path.name, generator=("gan", "other")[i // 2 % 2] if sample.label else "")
        for i, sample in enumerate(read_samples(toy))
    ]
    write_manifest(samples, tmp_path / "data.jsonl")
    folds = {"one": {"left_out_generators": ["gan"], "left_out_real_sources": []}}
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    config = DataConfig(
        train=str(tmp_path / "data.jsonl"),
        folds=str(tmp_path / "folds.json"),
        leave_out_fold="one",
        validation=0.0,
        quarantine=True,
        aligned=(str(tmp_path / "fakes.jsonl"),),
        aligned_share=0.5,
    )
    splits = read_splits(config, 0)
    assert {sample.generator for sample in splits.train if sample.label} == {"ae", "other"}
    assert [sample.path.name for sample, _ in splits.quarantined] == ["broken.png"]
