"""The whole network: what inference leaves out, colour order, shapes, and the float32 island under autocast."""

import pytest
import torch
from tiny import noise, tiny_model
from torch import nn

from apn.models.apn import classifier, he_start


@torch.inference_mode()
def test_inference_leaves_out_the_irrelevant_side_and_nothing_else() -> None:
    model, image = tiny_model().eval(), noise(2)
    whole, short = model(image), model(image, irrelevant=False)
    assert short.irrelevant is short.irrelevant_frequency is None
    for name in set(whole._fields) - {"irrelevant", "irrelevant_frequency", "proposals"}:
        torch.testing.assert_close(getattr(short, name), getattr(whole, name), rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("weight", [None, 0.0, 0.2, 1.0])
def test_logits_classify_the_mean_of_the_two_artifacts(weight: float | None) -> None:
    model = (tiny_model() if weight is None else tiny_model(frequency_weight=weight)).eval()
    output = model(noise(2))
    share = 0.5 if weight is None else weight
    mean = share * output.artifact_frequency + (1 - share) * output.artifact_spatial
    torch.testing.assert_close(output.artifact, mean)
    torch.testing.assert_close(output.irrelevant, output.irrelevant_spatial.lerp(output.irrelevant_frequency, share))
    torch.testing.assert_close(output.logits, model.classifier(mean))
    torch.testing.assert_close(output.logits_frequency, model.classifier(output.artifact_frequency))
    torch.testing.assert_close(output.logits_spatial, model.classifier(output.artifact_spatial))


@torch.inference_mode()
def test_the_spatial_logits_alone_are_the_same() -> None:
    model, image = tiny_model(channel_order="bgr").eval(), noise(2)
    torch.testing.assert_close(model.spatial_logits(image), model(image).logits_spatial, rtol=0, atol=0)


@torch.inference_mode()
def test_hes_start_keeps_the_size_of_the_signal() -> None:
    """Mean square of the logits over random starts, for inputs of mean square 1: 2 in expectation, where PyTorch's own
    start leaves next to nothing."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 128)
    heads = [model.classifier for model in (tiny_model(head_start=start) for start in ("he", "default"))]
    assert all(layer.bias.eq(0).all() for layer in heads[0] if isinstance(layer, nn.Linear))
    squares = torch.stack([classifier(128).apply(he_start)(inputs).square().mean() for _ in range(400)])
    assert squares.mean() == pytest.approx(2, abs=4 * float(squares.std()) / 20)  # four standard errors
    by_default = torch.stack([classifier(128)(inputs).var(dim=0).mean() for _ in range(20)]).mean()
    assert by_default < 0.01


@torch.inference_mode()
def test_bgr_weights_still_take_rgb() -> None:
    rgb, bgr = (tiny_model(channel_order=order).eval() for order in ("rgb", "bgr"))
    image = noise(2)
    torch.testing.assert_close(bgr(image).logits, rgb(image.flip(1)).logits, rtol=0, atol=0)
    assert not torch.allclose(bgr(image).logits, rgb(image).logits, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 65, 64), (2, 1, 64, 64), (3, 64, 64)])
def test_another_shape_is_quoted(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"expected images \(B, 3, 64, 64\), found \({', '.join(map(str, shape))}\)"):
        tiny_model()(torch.zeros(shape))


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_autocast_leaves_spectrum_and_proposers_in_float32(mode: str) -> None:
    model, image = tiny_model(bands=mode).eval(), noise(2)
    exact = model(image)
    purified = model.frequency.split(image)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image)
        assert (model.frequency.split(image)[0] - purified).abs().max() < 1e-6
    assert output.artifact_spatial.dtype == torch.bfloat16  # autocast did act
    for found, expected in zip(output.proposals.axes(), exact.proposals.axes(), strict=True):
        for edge, wanted in zip(found, expected, strict=True):
            assert edge.dtype == torch.float32
            assert (edge - wanted).abs().max() < 1e-6


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix() -> None:
    model, image = tiny_model(bands="soft").eval(), noise(3)
    together = model(image).logits
    alone = torch.cat([model(one[None]).logits for one in image])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-6


@torch.inference_mode()
def test_bands_may_be_normalized_for_their_encoder() -> None:
    plain, normalized = tiny_model().eval(), tiny_model(band_normalize=True).eval()
    assert plain.state_dict().keys() == normalized.state_dict().keys()  # a setting, not weights
    images = noise(4)[None]  # of one picture, as many bands
    for name in ("artifact_encoder", "irrelevant_encoder"):
        found = normalized.frequency.get_submodule(name)(images)
        torch.testing.assert_close(found, plain.frequency.get_submodule(name)((images - 0.5) / 0.5))
