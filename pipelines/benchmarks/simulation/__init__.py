"""Simulated active learning: acquisition functions compared with an oracle annotator."""
