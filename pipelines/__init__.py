"""The journey of a picture: workspace, rounds, dataset versions, models, the command line."""
