"""Where people meet images: Label Studio for correcting, FiftyOne for looking."""
