"""Label errors: boxes that are probably missed, misplaced or mislabelled, ranked for review."""
