"""The evaluation report: a model's detections on any annotated images, in figures and on one page."""
