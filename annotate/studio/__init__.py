"""Label Studio: server, labelling config, tasks with pre-annotations, and harvest of annotations."""
