"""Evaluation of models (``report``) and of class books (``text_eval``)."""
