"""Active learning: workspaces, rounds, training, evaluation, services and the command line."""
