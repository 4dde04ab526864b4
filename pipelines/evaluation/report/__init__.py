"""The evaluation report: metrics of a model on annotated images as JSON and as an HTML page."""
