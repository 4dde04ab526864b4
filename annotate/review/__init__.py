"""FiftyOne: ground truth, detections, uncertainty and routing of a workspace."""
