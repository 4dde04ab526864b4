"""Labelled data of a workspace or of files, and pictures of it."""
