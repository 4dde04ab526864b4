"""Trainings that are compared: the same pictures, size, budget and judge for everybody; each is done once."""
