"""YOLOv8 by ultralytics as a model of a comparison, run as a separate process in its own environment.

Ultralytics is licensed under the AGPL and pins packages that conflict with the rest of the project. It is not
a dependency: no module of the project imports it, and ``runner.py`` imports no module of the project. The
processes exchange JSON files.
"""
