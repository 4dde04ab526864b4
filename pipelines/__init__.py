"""The journey of an image: workspace, rounds, dataset versions, models, the command line."""
