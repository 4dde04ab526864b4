"""Augmentations of letterboxed training images, one function each; boxes follow the pixels exactly.

Every function takes its parameters as numbers. Random parameters are sampled in ``data/batches.py``, or by
the generator that is passed in, so that a batch depends on (seed, step) alone.
"""
