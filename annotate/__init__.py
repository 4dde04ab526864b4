"""Where people meet pictures: Label Studio for correcting, FiftyOne for looking."""
