"""What the loop in ``train.py`` calls: one file a thing, none of them knows the loop."""
