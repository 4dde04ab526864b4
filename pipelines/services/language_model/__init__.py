"""Language models: connection, a local inference server, and a check of structured output."""
