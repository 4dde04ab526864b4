"""Images and annotations: reading, quarantine, formats, synthetic sets."""
