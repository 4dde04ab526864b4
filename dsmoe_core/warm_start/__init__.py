"""First weights of our own making for the image encoder; those that ship lie here, with their cards."""
