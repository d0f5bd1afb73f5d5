"""Settings: each file of `configs/` is valid, a typo is an error that names its place, overrides are TOML."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from apn.config import Config, apply_overrides, read_config
from apn.model_config import ModelConfig

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def written(folder: Path, text: str, name: str = "some.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_named_like_their_file(path: Path, tmp_path: Path) -> None:
    config = read_config(path)
    assert config.name == path.stem
    assert read_config(written(tmp_path, config.model_dump_json(), "config.json")) == config  # as checkpoints keep it


def test_there_are_shipped_configurations() -> None:
    assert {"apn-mini", "apn-base"} <= {path.stem for path in CONFIGS}


def test_defaults_are_the_papers() -> None:
    model, train = Config().model, Config().train
    assert (model.image_size, model.embedding_dim, model.band_count, model.bands) == (224, 256, 15, "hard")
    assert (train.batch_size, train.learning_rate, train.basis_learning_rate) == (24, 1e-4, 1e-7)
    assert (train.warmup_steps, train.warmup_start, train.schedule_steps) == (20, 1 / 3, 30_000)
    assert (train.club_steps, train.club_learning_rate, train.club_schedule_steps) == (3, 1e-5, 20_000)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().model.band_count = 3


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("colour = 'green'", "colour: no such setting"),
        ("[model]\nband_cuont = 3", r"model.band_cuont: no such setting, did you mean model.band_count\?"),
        (
            "[model]\narchitecture = 'npr'\nband_cuont = 3",
            r"model.band_cuont: .* mean model.backbone\?",
        ),  # it has no bands
        (
            "[model]\narchitecture = 'npr'\n[train]\nstep = 3",
            r"train.step: no such setting, did you mean train.steps\?",
        ),
        ("[data.degradations]\njpg = 1.0", "data.degradations.jpg: no such setting"),
        ("[model]\nband_count = 0", "model.band_count: .*greater than or equal to 1"),
        ("[model]\nembedding_dim = 49", "model.embedding_dim: .*multiple of 2"),
        ("[model]\nbands = 'blurry'", "model.bands: Input should be 'hard', 'soft' or 'straight-through'"),
        ("[train]\nsteps = 'many'", "train.steps: .*valid integer"),
        ("[train]\nlearning_rate = 0", "train.learning_rate: .*greater than 0"),
        ("[train]\nbackbone_learning_rate = -1", "train.backbone_learning_rate: .*greater than or equal to 0"),
        ("[train]\nseed = -1", "train.seed: .*greater than or equal to 0"),
        ("[train]\nseed = 4_294_967_296", "train.seed: .*less than 4294967296"),
        ("[data.degradations]\njpeg = 1.5", "data.degradations.jpeg: .*less than or equal to 1"),
        (
            "[data.degradations]\njpeg_quality = [90, 30]",
            r"data.degradations: .*jpeg_quality as \(low, high\), found \(90, 30\)",
        ),
        ("[loss]\nsemantic_teacher = 'resnet18'\nsemantic = 0", "(?!all:).*the teacher would have no effect"),
        ("[model]\nhead_start = 'regressions'", r"(?!all:).*starts as those of loss\.soft_labels, which is off"),
        ("[model]\narchitecture = 'npr'\n[train]\nunit_spread = true", "(?!all:).*APN's classifier, which npr has not"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(text: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"some.toml: {place}") as problem:
        read_config(written(tmp_path, text))
    assert "Value error" not in str(problem.value)  # pydantic's words for our own


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.bend: .*; train.stops: "):
        read_config(written(tmp_path, "[model]\nbend = 1\n[train]\nstops = 2"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no configuration .*gone.toml: expected a TOML file, .* of the project's checkout"
    ):
        read_config(tmp_path / "gone.toml")
    with pytest.raises(ValueError, match=r"some.toml is not valid TOML: .*line 2, column"):
        read_config(written(tmp_path, "name = 'a'\nmodel = ?\n"))


def test_overrides_are_toml_values_or_bare_words(tmp_path: Path) -> None:
    path = written(tmp_path, "name = 'file'\n[train]\nsteps = 5\nbatch_size = 4")
    overrides = (
        "train.steps=7",
        "train.gradient_clip = 2.5",
        "model.bands=soft",
        "model.pretrained=false",
        "data.train=some/folder with spaces",
        "data.degradations.jpeg_quality=[10, 20]",
        "data.degradations.downscale_back=true",
        "name='a = b'",
    )
    config = read_config(path, overrides)
    assert (config.train.steps, config.train.batch_size, config.train.gradient_clip) == (7, 4, 2.5)
    assert (config.model.bands, config.model.pretrained) == ("soft", False)
    assert config.data.train == "some/folder with spaces"
    assert config.data.degradations.jpeg_quality == (10, 20)
    assert config.data.degradations.downscale_back
    assert config.name == "a = b"


def test_overrides_that_do_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path, "[train]\nsteps = 5")
    for override, message in {
        "train.steps": "expected section.key=value, found 'train.steps'",
        "=5": "expected section.key=value, found '=5'",
        "train.steps.more=5": "'steps' is a value, not a section",
        "train.stepz=5": "some.toml: train.stepz: no such setting, did you mean train.steps?",
        "train.steps=-1": "some.toml: train.steps: ",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_config(path, (override,))


def test_the_last_override_wins() -> None:
    assert apply_overrides({}, ("model.band_count=2", "model.band_count=3")) == {"model": {"band_count": 3}}


def test_suppression_of_soft_bands_is_refused() -> None:
    with pytest.raises(ValueError, match='band_suppression is of hard edges: expected bands "hard"'):
        ModelConfig(bands="soft", band_suppression=True)


def test_every_model_setting_can_be_saved_and_read_back() -> None:
    for field, choices in {
        "bands": ("hard", "soft", "straight-through"),
        "band_rows": ("half", "symmetric"),
        "channel_order": ("rgb", "bgr"),
    }.items():
        for choice in choices:
            config = ModelConfig(**{field: choice})
            assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_the_value_that_does_not_fit_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("")
    with pytest.raises(ValueError, match=r"train.steps: Input should be a valid integer, .*, found 'abc'$"):
        read_config(tmp_path / "a.toml", ("train.steps=abc",))
    with pytest.raises(ValueError, match=r"downscale_factor: Input should be a valid tuple, found 0.5$"):
        read_config(tmp_path / "a.toml", ("data.degradations.downscale_factor=0.5",))
