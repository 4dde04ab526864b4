"""FiftyOne: review of ground truth, predictions, uncertainty and routing of a workspace."""
