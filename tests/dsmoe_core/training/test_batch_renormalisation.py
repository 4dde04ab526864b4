"""Tests of batch renormalisation: values, gradients, and sets with different statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsmoe_core.training.batch_renormalisation import RAMP, WARM_UP, BatchRenorm, renormalise


def batches(seed: int, scale: float, shift: float, count: int = 1) -> list[Tensor]:
    """Batches of 4 x 3 x 8 x 8 values with this standard deviation and mean."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 8, 8, generator=generator) * scale + shift for _ in range(count)]


def with_statistics(mean: float, variance: float) -> BatchRenorm:
    """A module whose correction is complete."""
    norm = BatchRenorm(3)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.uniform_(norm.bias, -1.0, 1.0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(variance)
    norm.num_batches_tracked.fill_(WARM_UP + RAMP)
    return norm


def test_without_correction_it_equals_batch_normalisation() -> None:
    (x,) = batches(1, 2.0, 0.5)
    norm, plain = BatchRenorm(3), nn.BatchNorm2d(3)
    torch.testing.assert_close(norm.train()(x), plain.train()(x))


def test_with_full_correction_training_equals_prediction() -> None:
    (x,) = batches(2, 1.3, 0.4)
    norm = with_statistics(0.1, 0.8)
    expected = norm.eval()(x)
    torch.testing.assert_close(norm.train()(x), expected, rtol=1e-4, atol=1e-4)


def test_gradients_treat_the_correction_as_constant() -> None:
    (x,) = batches(3, 1.3, 0.4)
    norm = with_statistics(0.1, 0.8)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    mean, variance = second.mean((0, 2, 3)), second.var((0, 2, 3), correction=0)
    std, running = (variance + norm.eps).sqrt(), (torch.tensor(0.8) + norm.eps).sqrt()
    ratio, shift = (std / running).detach(), ((mean - 0.1) / running).detach()
    normal = (second - mean[:, None, None]) / std[:, None, None]
    corrected = normal * ratio[:, None, None] + shift[:, None, None]
    slow = corrected * norm.weight[:, None, None] + norm.bias[:, None, None]
    (slow * target).sum().backward()  # type: ignore[no-untyped-call]
    expected = [second.grad, norm.weight.grad, norm.bias.grad]
    norm.weight.grad = norm.bias.grad = None
    (norm.train()(first) * target).sum().backward()
    for actual, wanted in zip([first.grad, norm.weight.grad, norm.bias.grad], expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def difference_from_prediction(norm: nn.BatchNorm2d) -> float:
    """Largest difference between training and prediction, after batches of two sets in turn."""
    sets = list(zip(batches(5, 0.1, 0.2, 150), batches(6, 1.0, -1.0, 150), strict=True))
    for pair in sets:
        for x in pair:
            norm.train()(x)
    low_contrast = sets[-1][0]
    trained = norm.train()(low_contrast)
    predicted = norm.eval()(low_contrast)
    return float((trained - predicted).abs().max())


def test_sets_of_different_contrast_are_predicted_as_they_are_trained() -> None:
    assert difference_from_prediction(BatchRenorm(3)) < 0.1
    assert difference_from_prediction(nn.BatchNorm2d(3)) > 1.0


def test_renormalise_keeps_values_and_names() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    for x in batches(7, 2.0, 1.0, 3):
        network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    renormalise(network)
    assert [type(m) for m in network.modules()].count(BatchRenorm) == 2
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
