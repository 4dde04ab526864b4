"""The evaluation report: a model's findings on any annotated pictures, in figures and on one page."""
