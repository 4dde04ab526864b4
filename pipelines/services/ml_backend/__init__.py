"""Behind Label Studio's live pre-annotations and smart tools: one model in memory, one line of waiting."""
