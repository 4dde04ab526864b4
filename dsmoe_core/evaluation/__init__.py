"""Detection metrics: COCO mAP, error types, calibration, confidence intervals."""
