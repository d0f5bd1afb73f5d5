"""The baselines compute what their papers say, are of the papers' size, and keep still what should."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
import torchvision
from tiny import noise
from torch import nn
from torch.nn import functional as F

from apn.config import Config, read_config, validate
from apn.model_config import ModelConfig
from apn.models.baselines.dire import DIRE, Reconstructor, open_pipeline
from apn.models.baselines.f3net import (
    BEFORE_FIRST_MIX,
    STEM,
    Decomposition,
    F3Net,
    LocalStatistics,
    MixBlock,
    dct_matrix,
    sides_at_first_mix,
    widen_input,
)
from apn.models.baselines.gramnet import gram_matrix
from apn.models.baselines.lgrad import LGrad, to_unit_range
from apn.models.baselines.npr import neighbour_differences
from apn.models.baselines.spec import Spec
from apn.models.baselines.univfd import UnivFD
from apn.models.build import build_network

CONFIGS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))}
BASELINES = [name for name, path in CONFIGS.items() if not isinstance(read_config(path).model, ModelConfig)]

# timm's miniature networks where a method takes any trunk.
SMALL: dict[str, dict[str, Any]] = {
    "classifier": {"backbone": "test_vit"},
    "spec": {"backbone": "test_resnet"},
    "gramnet": {"backbone": "test_resnet"},
    "univfd": {"backbone": "test_resnet"},
    "lgrad": {"backbone": "test_resnet", "gradient_backbone": "test_resnet", "gradient_pretrained": False},
    "npr": {"backbone": "test_resnet"},
}


def settings(architecture: str, **changes: Any) -> Any:
    model = {"architecture": architecture, "image_size": 64, "pretrained": False, **SMALL.get(architecture, {})}
    return validate(Config, {"model": {**model, **changes}}, "test").model


def small(architecture: str, **changes: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(settings(architecture, **changes))


def learnable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


# Sizes ---------------------------------------------------------------------------------------------------------------

# Without their 1000 ImageNet classes: torchvision's documentation says 25,557,032 (ResNet-50), 28,288,354 (Swin-T) and
# 11,689,512 (ResNet-18), the DeiT paper 22 M (22,050,664), Cadene's Xception has 22,855,952.
RESNET50, DEIT_S, SWIN_T = 25_557_032 - 2_049_000, 22_050_664 - 385_000, 28_288_354 - 769_000
RESNET18, XCEPTION = 11_689_512 - 513_000, 22_855_952 - 2_049_000
# Gram-Net: the official layers, counted: 6 Gram blocks (3 + 64 + 64 + 64 + 128 + 256 channels to 32, then 1 to 16 to
# 32), their scale, 704 -> 512 -> 2. F3-Net: two Xceptions whose first convolutions take 12 and 6 channels, cross
# attention on 728 and 1024 channels, filters of 4 x 299 x 299 and 6 x 10 x 10, 4096 -> 2.
GRAM_BLOCKS = 579 * 32 * 9 + 6 * (2 * 32 + 16 * 9 + 2 * 16 + 16 * 32 * 9 + 2 * 32) + 1
MIX_BLOCKS = sum(4 * (c * c + c) + 2 * (2 * c + 2 * c) + 2 for c in (728, 1024))
F3NET = 2 * XCEPTION + (12 + 6 - 2 * 3) * 32 * 9 + MIX_BLOCKS + 4 * 299 * 299 + 6 * 10 * 10 + 4096 * 2 + 2
SIZES = {
    "resnet50": RESNET50 + 2048 * 2 + 2,
    "cnnspot": RESNET50 + 2048 * 2 + 2,
    "deit-s": DEIT_S + 384 * 2 + 2,
    "swin-t": SWIN_T + 768 * 2 + 2,
    "spec": RESNET50 + 2048 * 2 + 2,
    "gramnet": RESNET18 + GRAM_BLOCKS + 704 * 512 + 512 + 512 * 2 + 2,
    "f3net": F3NET,
    "univfd": 1024 * 2 + 2,
    "univfd-lite": 1280 * 2 + 2,
    "lgrad": RESNET50 + 2048 * 2 + 2,
}


@pytest.mark.parametrize("name", SIZES)
def test_what_learns_is_of_the_papers_size(name: str) -> None:
    config: Any = read_config(CONFIGS[name]).model
    if name == "f3net":
        config = config.model_copy(update={"image_size": 299})  # the paper's; its filters are as large as the image
    with torch.device("meta"):  # no memory: CLIP alone would take a gigabyte
        model = build_network(config, offline=True)
    assert learnable(model) == SIZES[name]


def test_npr_is_torchvisions_resnet_cut_short() -> None:
    """Its repository says 1.44 million."""
    with torch.device("meta"):
        found = learnable(build_network(read_config(CONFIGS["npr"]).model, offline=True))
        whole = torchvision.models.resnet50()
    kept = sum(learnable(part) for part in (whole.bn1, whole.layer1, whole.layer2))
    assert found == 3 * 64 * 3 * 3 + kept + 512 * 2 + 2
    assert round(found / 1e6, 2) == 1.44


def test_frozen_clip_is_its_image_tower_without_projection() -> None:
    with torch.device("meta"):
        model = build_network(read_config(CONFIGS["univfd"]).model, offline=True)
    trunk = sum(parameter.numel() for parameter in model.get_submodule("backbone").parameters())
    assert trunk == 303_966_208 - 1024 * 768


# What they share -----------------------------------------------------------------------------------------------------


def test_every_architecture_has_a_configuration_that_says_its_method() -> None:
    found = {read_config(CONFIGS[name]).model.architecture for name in BASELINES}
    assert found == {"classifier", "spec", "f3net", "gramnet", "univfd", "lgrad", "dire", "npr"}
    for name in BASELINES:
        head = CONFIGS[name].read_text(encoding="utf-8")
        assert f"apn train configs/{name}.toml --out runs/{name} " in head


def test_baselines_learn_from_the_same_data() -> None:
    """CNNSpot's blur and JPEG are its method, and all that differs."""
    shared = read_config(CONFIGS["resnet50"]).data.model_dump()
    for name in BASELINES:
        data = read_config(CONFIGS[name]).data.model_dump()
        if name == "cnnspot":
            own = data["degradations"]
            assert (own["blur"], own["blur_sigma"], own["jpeg"], own["jpeg_quality"]) == (0.5, (0, 3), 0.5, (30, 100))
            data["degradations"] = own | {
                key: shared["degradations"][key] for key in ("blur", "blur_sigma", "jpeg", "jpeg_quality")
            }
        assert data == shared, name


@pytest.mark.parametrize("architecture", [*SMALL, "f3net"])
def test_two_logits_an_image_whatever_else_is_in_the_batch(architecture: str) -> None:
    model, image = small(architecture).eval(), noise(3)
    with torch.inference_mode():
        logits = model(image, irrelevant=False).logits
        assert logits.shape == (3, 2)
        torch.testing.assert_close(model(image[1:2]).logits, logits[1:2], rtol=1e-3, atol=1e-4)
        assert (logits[0] - logits[1]).abs().max() > 1e-6
        with pytest.raises(ValueError, match=r"expected images \(B, 3, 64, 64\), found \(3, 3, 64, 60\)"):
            model(image[..., :60])


@pytest.mark.parametrize("architecture", [*SMALL, "f3net"])
def test_the_loss_reaches_everything_that_learns_and_nothing_else(architecture: str) -> None:
    model = small(architecture).train()
    F.cross_entropy(model(noise(4)).logits, torch.tensor([0, 1, 0, 1])).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert model.head[-1].weight.grad.any() if isinstance(model.head, nn.Sequential) else model.head.weight.grad.any()
    assert (architecture in ("univfd", "lgrad")) == any(not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("architecture", "kind"), [("gramnet", "ResNet"), ("npr", "ResNet"), ("f3net", "Xception")])
def test_a_trunk_of_the_wrong_kind_is_refused(architecture: str, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"backbone 'test_vit' has no .*: expected a timm {kind}"):
        small(architecture, backbone="test_vit")


# Spec ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 48])
def test_spec_sees_what_the_formula_says(size: int) -> None:
    image = noise(2, size)
    view = small("spec", image_size=size).view(image).numpy()
    assert isinstance(small("spec"), Spec)
    spectrum = np.log(np.abs(np.fft.fft2(image.numpy().astype(np.float64))) + 1e-3)
    low, high = (np.percentile(spectrum, share, axis=(2, 3), keepdims=True) for share in (5, 95))
    np.testing.assert_allclose(view, np.clip(2 * (spectrum - low) / (high - low) - 1, -1, 1), atol=1e-4)


def test_a_flat_image_has_a_flat_spectrum_but_for_its_corner() -> None:
    view = small("spec").view(torch.full((1, 3, 64, 64), 0.5))
    assert torch.isfinite(view).all()
    assert (view[..., 0, 0] == 1).all()


# NPR -----------------------------------------------------------------------------------------------------------------


def test_npr_sees_nothing_in_an_image_doubled_by_nearest_neighbour() -> None:
    doubled = noise(2, 32).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert not neighbour_differences(doubled).any()


def test_npr_takes_the_upper_left_pixel_of_each_cell_away() -> None:
    image = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert neighbour_differences(image).tolist() == [[[[0.0, 1.0], [3.0, 7.0]]]]
    image = noise(2)
    down = F.interpolate(image, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    torch.testing.assert_close(neighbour_differences(image), image - F.interpolate(down, scale_factor=2.0))
    with pytest.raises(ValueError, match="expected an even image_size, not 65"):
        small("npr", image_size=65)


# Gram-Net ------------------------------------------------------------------------------------------------------------


def test_gram_matrix_is_the_mean_product_of_channels_wherever_they_are() -> None:
    features = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    gram = gram_matrix(features)
    expected = np.einsum("bchw,bdhw->bcd", features, features) / (5 * 4 * 6)
    np.testing.assert_allclose(gram[:, 0], expected, rtol=1e-5, atol=1e-7)
    places = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(gram_matrix(features.flatten(2)[..., places].view_as(features)), gram)


# F3-Net --------------------------------------------------------------------------------------------------------------


def test_dct_matrix_is_scipys() -> None:
    matrix = dct_matrix(16).double().numpy()
    np.testing.assert_allclose(matrix, scipy.fft.dct(np.eye(16), axis=0, norm="ortho"), atol=1e-6)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-6)


def test_bands_add_up_to_the_image() -> None:
    """Before anything is learnt: low + middle + high = all = the image, and bands hold their share of the area."""
    decompose, image = Decomposition(64), noise(2)
    nn.init.zeros_(decompose.filters.change)
    with torch.no_grad():
        low, middle, high, everything = decompose(image).split(3, dim=1)
    torch.testing.assert_close(everything, image, rtol=0, atol=1e-5)
    torch.testing.assert_close(low + middle + high, image, rtol=0, atol=1e-5)
    shares = decompose.filters.bands.mean(dim=(1, 2))
    torch.testing.assert_close(shares, torch.tensor([1 / 16, 1 / 16, 7 / 8, 1.0]), rtol=0, atol=0.02)
    assert low.diff(dim=-1).abs().max() < high.diff(dim=-1).abs().max()


def test_local_statistics_are_those_of_each_window() -> None:
    statistics, image = LocalStatistics(), noise(1, 32) * 2 - 1
    with torch.no_grad():
        found = statistics(image)[0].numpy()
        filters = statistics.filters().abs().double().numpy()
    assert found.shape == (6, 16, 16)
    grey = np.pad(127.5 * (np.tensordot([0.299, 0.587, 0.114], image[0].double().numpy(), 1) + 1), 4)
    for top, left in ((0, 0), (5, 9), (15, 15)):
        window = grey[2 * top : 2 * top + 10, 2 * left : 2 * left + 10]
        amplitude = np.abs(scipy.fft.dctn(window, norm="ortho"))
        expected = np.log10((filters * amplitude).sum(axis=(1, 2)) + 0.01)
        np.testing.assert_allclose(found[:, top, left], expected, rtol=1e-4)


def test_every_local_frequency_is_in_one_band() -> None:
    assert (LocalStatistics().filters.bands.sum(dim=0) == 1).all()


def test_cross_attention_starts_closed_and_opens_with_its_gates() -> None:
    mix, bands, local = MixBlock(4).eval(), torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        for output in mix.outputs:  # keep what passes the gate visible
            output[0].weight.fill_(1)
            output[0].bias.zero_()
        closed = mix(bands, local)
        torch.testing.assert_close(closed, (bands, local), rtol=0, atol=1e-6)
        mix.gates.fill_(100.0)  # open: sigmoid 1, gate 1
        for branch in (mix.queries, mix.keys):
            for convolution in branch:
                convolution.weight.zero_()
                convolution.bias.zero_()
        opened, _ = mix(bands, local)  # equal energies: every attention is 1 / 5
    torch.testing.assert_close(opened, bands + local / 5, rtol=1e-4, atol=1e-4)


def test_a_widened_input_answers_to_repeats_as_before() -> None:
    trunk = nn.Module()
    trunk.conv1 = nn.Conv2d(3, 4, 3, stride=2, bias=False)
    image = noise(1, 16)
    expected = trunk.conv1(image)
    widen_input(trunk, 12, stride=2)
    torch.testing.assert_close(trunk.conv1(image.repeat(1, 4, 1, 1)), expected)


@pytest.mark.parametrize("size", [64, 128, 224, 299])
def test_both_trunks_of_f3net_meet_at_one_size(size: int) -> None:
    """Cross attention needs maps of one size, though the first layers differ."""
    with torch.device("meta"):
        model = build_network(settings("f3net", image_size=size))
        assert isinstance(model, F3Net)
        windows = (size + 2 * 4 - 10) // 2 + 1
        model.views = lambda _: (torch.empty(1, 12, size, size), torch.empty(1, 6, windows, windows))  # type: ignore
        assert model.classify(torch.empty(1, 3, size, size)).shape == (1, 2)
    assert LocalStatistics()(torch.zeros(1, 3, size, size)).shape == (1, 6, windows, windows)


def test_a_size_at_which_the_trunks_of_f3net_do_not_meet_is_refused() -> None:
    """Against the layers themselves, about a size that is refused; of all sizes those of three remainders of 16 are."""
    with torch.device("meta"):
        model = build_network(settings("f3net"))
        assert isinstance(model, F3Net)
        trunks, layers = list(model.backbone.children()), STEM + BEFORE_FIRST_MIX
        found = {}
        for size in range(70, 76):
            windows = (size + 2 * 4 - 10) // 2 + 1
            seen = torch.empty(1, 12, size, size), torch.empty(1, 6, windows, windows)
            maps = [F3Net._run(one, layers, part) for one, part in zip(trunks, seen, strict=True)]
            found[size] = tuple(one.shape[-1] for one in maps)
    assert {size: sides_at_first_mix(size) for size in found} == found
    sides = {size: sides_at_first_mix(size) for size in range(32, 513)}
    refused = [size for size, (bands, local) in sides.items() if bands != local]
    assert refused == [size for size in sides if size % 16 in (7, 8, 9)]
    with pytest.raises(ValueError, match="expected an image_size such as a multiple of 16, not 200, which gives 13 x "):
        build_network(settings("f3net", image_size=200))


# LGrad and UnivFD: what is frozen ------------------------------------------------------------------------------------


def test_lgrad_sees_the_gradient_even_where_gradients_are_off() -> None:
    model, image = small("lgrad").eval(), noise(2)
    pixels = image.clone().requires_grad_()
    expected = torch.autograd.grad(model.frozen(model.frozen_normalize(pixels)).sum(), pixels)[0]
    for context in (torch.inference_mode(), torch.no_grad(), torch.enable_grad()):
        with context:
            torch.testing.assert_close(model.gradient(image), expected)
    assert expected.abs().max() > 1e-6


def test_unit_range() -> None:
    maps = torch.randn(2, 3, 4, 4)
    maps[1] = 7.0
    found = to_unit_range(maps)
    assert (found[0].min(), found[0].max()) == (0, 1)
    assert not found[1].any()
    torch.testing.assert_close(found[0], (maps[0] - maps[0].min()) / (maps[0].max() - maps[0].min()))


@pytest.mark.parametrize(("architecture", "frozen"), [("univfd", "backbone"), ("lgrad", "frozen")])
def test_the_frozen_network_keeps_still(architecture: str, frozen: str) -> None:
    """Batch norm statistics included."""
    model = small(architecture).train()
    assert isinstance(model, UnivFD | LGrad)
    part = model.get_submodule(frozen)
    before = {name: value.clone() for name, value in part.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(noise(4)).logits.square().sum().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())
    assert not any(module.training for module in part.modules())
    assert model.head.training


# DIRE ----------------------------------------------------------------------------------------------------------------

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="extra `dire`")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pixel diffusion model with random weights, saved as a model hub would have it."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=64,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    folder = tmp_path_factory.mktemp("ddpm")
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder


@needs_diffusers
@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_ddim_there_and_back_gives_the_image_where_the_noise_never_changes(constant: float, pipeline: Path) -> None:
    """Each step is then a known blend of image and noise, and the way back undoes it."""
    opened, image = open_pipeline(str(pipeline)), 2 * noise(2) - 1
    opened.unet.conv_out.weight.zero_()
    opened.unet.conv_out.bias.fill_(constant)
    torch.testing.assert_close(Reconstructor(opened, 10)(image), image, rtol=0, atol=1e-4)
    opened.unet.conv_out.weight.fill_(0.01)  # noise that follows the image is not undone
    assert (Reconstructor(opened, 10)(image) - image).abs().mean() > 1e-3


@needs_diffusers
def test_dire_sees_the_error_and_keeps_the_diffusion_model_out_of_its_weights(pipeline: Path) -> None:
    model = small("dire", backbone="test_resnet", pipeline=str(pipeline), diffusion_steps=2).eval()
    assert isinstance(model, DIRE)
    assert not [name for name in model.state_dict() if "unet" in name]
    image = noise(2)
    with torch.inference_mode():
        pixels = 2 * image - 1
        error = (pixels - model._reconstruct(pixels)).abs() / 2
        torch.testing.assert_close(model.view(image), model.normalize(error.clamp(max=1)))
        assert model(image).logits.shape == (2, 2)


def test_dire_without_weights_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"DIRE needs a diffusion model: set model\.pipeline"):
        open_pipeline("")
    if importlib.util.find_spec("diffusers"):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"cannot open the diffusion pipeline '.*empty' \(model\.pipeline\)"):
            open_pipeline(str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r'DIRE needs diffusers .*pip install "apn\[dire\]"'):
        open_pipeline("some/pipeline")
