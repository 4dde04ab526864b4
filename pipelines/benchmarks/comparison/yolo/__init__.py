"""Ultralytics' YOLOv8 as a contestant: in an environment of its own, as a process, spoken to by files alone.

Ultralytics is under the AGPL and pins packages that fit no other part of the house, so it is no dependency
of ours: nothing here imports it, and ``runner.py`` imports nothing of ours.
"""
