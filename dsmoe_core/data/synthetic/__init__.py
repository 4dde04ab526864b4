"""Drawn data sets: pictures of our own with known defects, for trying everything without any data."""

from dsmoe_core.data.synthetic.write_set import write_set

__all__ = ["write_set"]
