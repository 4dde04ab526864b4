"""Labelled data of a workspace or of files, and images of it."""
