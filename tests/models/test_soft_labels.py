"""Soft labels are scikit-learn's logistic regressions, added up for each branch."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import noise, tiny_model

from apn.models.apn import APN
from apn.models.soft_labels import SoftLabels

LOOK = {"view": "residual", "backbone": "tf_efficientnet_lite0_stats1", "reference": "median"}


def model(**settings: Any) -> APN:
    return tiny_model(
        spatial_backbone="tf_efficientnet_lite0_stats2", further_looks=[LOOK], spatial_normalize=True, **settings
    )


def with_frozen_bands() -> APN:
    return model(view="residual", band_view="colour-residual", band_encoder="tf_efficientnet_lite0_stats1")


def pictures(count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Every other one is smoother, and a fifth of the labels wrong: the scale of a sum that tells all has no end."""
    image, labels = noise(count), np.arange(count) % 2
    image[1::2] = (image[1::2] + 0.3 * image[1::2].roll(1, 3)) / 1.3
    labels[::5] = 1 - labels[::5]
    return image, labels


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_each_label_adds_the_regressions_on_what_its_branch_sees(penalty: float) -> None:
    network = with_frozen_bands()
    soft, (image, labels) = SoftLabels(network), pictures(160)
    features = [one.double().numpy() for one in soft.features(image)]
    assert [one.shape for one in features] == [(160, 48), (160, 32), (160, 32 * network.config.band_count)]
    soft.fit(features, labels, penalty)
    logits = []
    for one in features:
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (160 * penalty), max_iter=1000))
        found = regression.fit(one, labels).decision_function(one)
        logits.append((found - found.mean()) / found.std())
    stage, look, bands = logits
    for found, added in zip(soft(image), (stage + look + bands, bands, stage + look), strict=True):
        expected = LogisticRegression(C=1e6).fit(added[:, None], labels).predict_proba(added[:, None])
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert ((found[:, 1] > 0.5).numpy() == labels).mean() > 0.7
    torch.testing.assert_close(soft.of_spatial(image), soft(image).spatial)


def test_bands_that_learn_are_taught_what_the_looks_say() -> None:
    soft, (image, labels) = SoftLabels(model()), pictures(40)
    features = [one.double().numpy() for one in soft.features(image)]
    assert [one.shape for one in features] == [(40, 48), (40, 32)]
    soft.fit(features, labels, 1.0)
    joint, frequency, spatial = soft(image)
    assert torch.equal(joint, spatial)
    assert torch.equal(frequency, spatial)


def test_a_strong_penalty_is_the_difference_of_the_means() -> None:
    """In the limit: the only direction that all of the mean loss's gradient at 0 has."""
    soft, (image, labels) = SoftLabels(model()), pictures(40)
    features = [one.double().numpy() for one in soft.features(image)]
    soft.fit(features, labels, 1e6)
    one = (features[1] - features[1].mean(0)) / features[1].std(0)
    expected = (one[labels == 1].mean(0) - one[labels == 0].mean(0)) / features[1].std(0)
    found = soft.get_buffer("weight1").double().numpy()[:, 0]
    assert np.corrcoef(found, expected)[0, 1] > 0.999


def test_they_look_with_the_network_as_it_was() -> None:
    network, (image, labels) = with_frozen_bands(), pictures(12)
    soft = SoftLabels(network)
    soft.fit([one.double().numpy() for one in soft.features(image)], labels, 1.0)
    before = torch.stack(soft(image))
    network.train()(image)  # its norms follow the data
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    soft.train()
    assert torch.equal(torch.stack(soft(image)), before)
    assert not any(parameter.requires_grad for parameter in soft.parameters())
