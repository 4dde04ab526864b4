"""Synthetic data sets: rendered images with known defects, for tests, demos and pre-training."""

from dsmoe_core.data.synthetic.dataset import SYNTHETIC_SET_FILES, write_synthetic_set
from dsmoe_core.data.synthetic.generators import GENERATORS, generator_version

__all__ = ["GENERATORS", "SYNTHETIC_SET_FILES", "generator_version", "write_synthetic_set"]
