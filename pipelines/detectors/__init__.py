"""Detector backends, prediction over folders of images, and experiment tracking."""
