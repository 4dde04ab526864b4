"""Knock-outs: what each part of a trained network contributes to its metrics."""
