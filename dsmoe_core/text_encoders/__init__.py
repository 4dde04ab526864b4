"""Frozen text encoders of class descriptions (``Enc`` of stage 1), with one interface and a cache on disk.

They are not part of the network: their vectors are its input and are computed once per class book.
"""
