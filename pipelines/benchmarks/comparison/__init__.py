"""Comparison of detectors trained on the same images, with the same budget and the same evaluation."""
