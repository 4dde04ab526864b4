"""Labelled data of a workspace or of files, and how it is drawn."""
