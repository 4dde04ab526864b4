"""FiftyOne: ground truth, findings, uncertainty and routing of a workspace."""
