"""Trainings that are compared: the same images, size, budget and judge for everybody; each is done once."""
