"""Behind Label Studio's live pre-labels and smart tools: one model in memory, one line of waiting."""
