"""Interfaces to people: Label Studio for annotation, FiftyOne for review."""
