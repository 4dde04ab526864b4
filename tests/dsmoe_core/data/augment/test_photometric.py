"""Photometric augmentations change the pixels as specified and no boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.data.augment.photometric import add_noise, adjust_brightness, adjust_contrast, gaussian_blur
from dsmoe_core.data.augment.sample import Sample
from tests.dsmoe_core.data.augment.samples import SAMPLES, bright_box, with_rectangle


@given(SAMPLES, st.floats(0.7, 1.4), st.floats(2, 12), st.floats(0.3, 1.2), st.integers(0, 99))
def test_box_stays_on_its_pixels(
    sample: Sample, contrast: float, sigma: float, width: float, seed: int
) -> None:
    changed = adjust_brightness(sample, gain=0.9, offset=5.0)
    changed = adjust_contrast(changed, contrast=contrast)
    changed = add_noise(changed, sigma=sigma, rng=np.random.default_rng(seed))
    changed = gaussian_blur(changed, sigma=width)
    assert tuple(sample.boxes[0]) == tuple(changed.boxes[0])
    assert np.abs(np.array(bright_box(changed)) - sample.boxes[0]).max() <= 1
    assert len(changed.applied) == 4
    np.testing.assert_array_equal(
        sample.pixels, with_rectangle(*_position(sample)).pixels
    )  # the input is unchanged


def _position(sample: Sample) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = map(int, sample.boxes[0])
    return x1, y1, x2 - x1, y2 - y1


def grey(value: int) -> Sample:
    return Sample(np.full((64, 64, 3), value, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def test_contrast_scales_the_difference_to_the_mean() -> None:
    halves = grey(100)._replace(pixels=np.repeat([[[100] * 3], [[140] * 3]], 2, axis=1).astype(np.uint8))
    assert adjust_contrast(halves, contrast=0.5).pixels[:, 0, 0].tolist() == [110, 130]
    assert adjust_contrast(halves, contrast=2.0).pixels[:, 0, 0].tolist() == [80, 160]


def test_noise_has_its_sigma_and_is_equal_in_all_channels() -> None:
    noisy = add_noise(grey(128), sigma=8.0, rng=np.random.default_rng(0)).pixels
    assert abs(noisy[..., 0].std() - 8.0) < 0.5
    assert (noisy[..., 0] == noisy[..., 2]).all()


def test_blur_softens_an_edge() -> None:
    sharp = with_rectangle(20, 20, 20, 20)
    steps = [
        int(np.abs(np.diff(s.pixels[30, :, 0].astype(int))).max())
        for s in (sharp, gaussian_blur(sharp, sigma=1.2))
    ]
    assert steps[0] == 255
    assert steps[1] < 128
