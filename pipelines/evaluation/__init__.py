"""Evaluation of models and of class descriptions."""
