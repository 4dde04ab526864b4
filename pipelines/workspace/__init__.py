"""A workspace and everything stored in it: journal, images, dataset versions, predictions, models."""
