"""The pages: each shows one snapshot of a workspace, and says what is missing where there is nothing yet."""
