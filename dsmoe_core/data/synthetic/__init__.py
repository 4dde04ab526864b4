"""Drawn data sets: images of our own with known defects, for trying everything without any data."""

from dsmoe_core.data.synthetic.kinds import KINDS, generator_version
from dsmoe_core.data.synthetic.write_set import SET_PARTS, write_set

__all__ = ["KINDS", "SET_PARTS", "generator_version", "write_set"]
