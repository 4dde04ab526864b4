"""``Enc`` of stage 1: frozen encoders of class descriptions, behind one small interface, and a cache on disk.

They stand outside the network: their vectors are its input, computed once per class book.
"""
