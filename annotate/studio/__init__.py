"""Label Studio: server, label config, tasks with pre-annotations, harvest."""
