"""ML backend of Label Studio: live pre-annotations and smart tools from one model in memory."""
