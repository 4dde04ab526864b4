"""The active-learning loop: open a round, close a round."""
