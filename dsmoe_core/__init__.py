"""The detector and the words that every other room shares."""
