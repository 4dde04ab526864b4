"""Label Studio: server, label config, tasks with pre-labels, harvest."""
