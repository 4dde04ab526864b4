"""What training does to a letter-boxed image before it is shown: one function each, boxes follow exactly.

Every function takes what it should do as numbers; what is drawn at random is drawn in ``data/batches.py``, or
from the generator that is handed in, so that a batch depends on (seed, step) alone.
"""
