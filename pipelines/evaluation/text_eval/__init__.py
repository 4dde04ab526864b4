"""Evaluation of a class book by its effect on the detector, compared with another book and with controls."""
