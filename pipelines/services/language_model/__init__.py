"""A language model of one's own: its engine's environment, its server, and whether it answers as we need."""
