"""The ten stages of the paper's Figure 2 and the detection head, one module per stage."""
