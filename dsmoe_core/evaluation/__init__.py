"""How good a detector is: COCO scores, error types, calibration, and how sure these figures are."""
