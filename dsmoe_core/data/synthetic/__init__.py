"""Drawn data sets: images of our own with known defects, for trying everything without any data."""

from dsmoe_core.data.synthetic.dataset import SYNTHETIC_SET_FILES, write_synthetic_set
from dsmoe_core.data.synthetic.generators import GENERATORS, generator_version

__all__ = ["GENERATORS", "SYNTHETIC_SET_FILES", "generator_version", "write_synthetic_set"]
