"""The ten stages of Figure 2 and the head, one file a stage."""
