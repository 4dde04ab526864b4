"""Stand-alone training, pre-training and pretrained weights."""
