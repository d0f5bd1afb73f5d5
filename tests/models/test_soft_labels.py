"""Soft labels are scikit-learn's logistic regressions, added up."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny import noise, tiny_model
from torch.nn import functional as F

from apn.models.apn import APN
from apn.models.soft_labels import SoftLabels

LOOK = {"view": "residual", "backbone": "tf_efficientnet_lite0_stats1", "reference": "median"}


def model(**settings: Any) -> APN:
    return tiny_model(
        spatial_backbone="tf_efficientnet_lite0_stats2", further_looks=[LOOK], spatial_normalize=True, **settings
    )


def pictures(count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Every other one is smoother."""
    image, labels = noise(count), np.arange(count) % 2
    image[1::2] = (image[1::2] + 0.3 * image[1::2].roll(1, 3)) / 1.3
    return image, labels


def sklearns(features: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Logits of scikit-learn's regression, of mean 0 and deviation 1."""
    regression = LogisticRegression(C=1 / (len(labels) * penalty), max_iter=1000).fit(features, labels)
    logits = regression.decision_function(features)
    return (logits - logits.mean()) / logits.std()


@pytest.mark.parametrize("penalty", [0.01, 1.0])
@pytest.mark.parametrize("joint", [None, 0.1])
def test_they_are_the_added_logits_of_regressions(penalty: float, joint: float | None) -> None:
    soft, (image, labels) = SoftLabels(model()), pictures(40)
    features = [one.double().numpy() for one in soft.features(image)]
    assert [one.shape for one in features] == [(40, 48), (40, 32)]
    soft.fit(features, labels, penalty, joint)
    standard = [StandardScaler().fit_transform(one) for one in features]
    added = sum(sklearns(one, labels, penalty) for one in standard)
    if joint is not None:
        together = np.concatenate([one / np.sqrt(one.shape[1]) for one in standard], axis=1)
        added = added / np.std(added) + sklearns(together, labels, joint)
    added = np.asarray(added)
    expected = LogisticRegression(C=1e6).fit(added[:, None], labels).predict_proba(added[:, None])
    found = soft(image)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert ((found[:, 1] > 0.5).numpy() == labels).mean() > 0.9


def test_a_strong_penalty_is_the_difference_of_the_means() -> None:
    """In the limit: the only direction that all of the mean loss's gradient at 0 has."""
    soft, (image, labels) = SoftLabels(model()), pictures(40)
    features = [one.double().numpy() for one in soft.features(image)]
    soft.fit(features, labels, 1e6)
    one = (features[1] - features[1].mean(0)) / features[1].std(0)
    expected = one[labels == 1].mean(0) - one[labels == 0].mean(0)
    found = soft.get_buffer("weight1").double().numpy()
    assert np.corrcoef(found, expected)[0, 1] > 0.999


def test_they_look_with_the_network_as_it_was() -> None:
    network, (image, labels) = model(), pictures(12)
    soft = SoftLabels(network)
    soft.fit([one.double().numpy() for one in soft.features(image)], labels, 1.0)
    before = soft(image)
    network.train()(image)  # its norms follow the data
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    soft.train()
    assert torch.equal(soft(image), before)
    assert not any(parameter.requires_grad for parameter in soft.parameters())


def test_a_network_can_start_as_they_are() -> None:
    """Whatever batches it saw or sees: what a regression was fitted on stays what it was."""
    network, (image, labels) = model(head_start="regressions"), pictures(40)
    soft = SoftLabels(network)
    soft.fit([one.double().numpy() for one in soft.features(image)], labels, 1.0)
    soft.start(network)
    network.train()(noise(4, seed=5))
    expected = soft(image[:8])
    for training in (True, False):
        logits = network.train(training)(image[:8]).logits_spatial
        torch.testing.assert_close(logits.softmax(dim=1), expected, atol=1e-4, rtol=0)
    F.cross_entropy(logits, expected).backward()
    others = [look.head[0].weight.grad[2:] for look in network.spatial.looks()]  # type: ignore[index]
    assert all(gradient.abs().max() < 1e-4 for gradient in others)  # nothing is left to learn
