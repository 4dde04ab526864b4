"""What lamp, camera and lens change: brightness, contrast, noise, blur. Boxes stay where they are."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from dsmoe_core.data.augment.sample import Sample


def adjust_brightness(sample: Sample, *, gain: float, offset: float) -> Sample:
    """``gain`` times the pixels plus ``offset`` grey levels, clipped."""
    bright = np.clip(sample.pixels * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)
    return sample.with_pixels(f"light {gain:.2f} {offset:+.0f}", bright)


def adjust_contrast(sample: Sample, *, contrast: float) -> Sample:
    """Stretch the pixels about their mean; below 1 they come closer together."""
    mean = np.float32(sample.pixels.mean(dtype=np.float64))
    stretched = np.clip((sample.pixels - mean) * np.float32(contrast) + mean, 0, 255).astype(np.uint8)
    return sample.with_pixels(f"contrast {contrast:.2f}", stretched)


def add_noise(sample: Sample, *, sigma: float, rng: np.random.Generator) -> Sample:
    """Gaussian noise of ``sigma`` grey levels, the same in all channels: a grey image stays grey."""
    noise = rng.standard_normal((*sample.pixels.shape[:2], 1), dtype=np.float32) * np.float32(sigma)
    noisy = np.clip(sample.pixels + noise, 0, 255).round().astype(np.uint8)
    return sample.with_pixels(f"noise {sigma:.0f}", noisy)


def gaussian_blur(sample: Sample, *, sigma: float) -> Sample:
    """Gaussian blur of ``sigma`` pixels of the square."""
    blurred = Image.fromarray(sample.pixels).filter(ImageFilter.GaussianBlur(sigma))
    return sample.with_pixels(f"blur {sigma:.1f}", np.asarray(blurred))
