"""Photometric augmentations: brightness, contrast, noise, blur. Boxes do not change."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from dsmoe_core.data.augment.sample import Sample


def adjust_brightness(sample: Sample, *, gain: float, offset: float) -> Sample:
    """Multiply the pixels by ``gain``, add ``offset`` grey levels and clip."""
    bright = np.clip(sample.pixels * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)
    return sample.with_pixels(f"light {gain:.2f} {offset:+.0f}", bright)


def adjust_contrast(sample: Sample, *, contrast: float) -> Sample:
    """Scale the difference of the pixels to their mean by ``contrast``; below 1 reduces the contrast."""
    mean = np.float32(sample.pixels.mean(dtype=np.float64))
    stretched = np.clip((sample.pixels - mean) * np.float32(contrast) + mean, 0, 255).astype(np.uint8)
    return sample.with_pixels(f"contrast {contrast:.2f}", stretched)


def add_noise(sample: Sample, *, sigma: float, rng: np.random.Generator) -> Sample:
    """Add Gaussian noise of ``sigma`` grey levels, equal in all channels, so that a grey image stays grey."""
    noise = rng.standard_normal((*sample.pixels.shape[:2], 1), dtype=np.float32) * np.float32(sigma)
    noisy = np.clip(sample.pixels + noise, 0, 255).round().astype(np.uint8)
    return sample.with_pixels(f"noise {sigma:.0f}", noisy)


def gaussian_blur(sample: Sample, *, sigma: float) -> Sample:
    """Blur by a Gaussian of ``sigma`` pixels of the square."""
    blurred = Image.fromarray(sample.pixels).filter(ImageFilter.GaussianBlur(sigma))
    return sample.with_pixels(f"blur {sigma:.1f}", np.asarray(blurred))
