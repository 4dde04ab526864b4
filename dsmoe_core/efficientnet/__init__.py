"""EfficientNet-Lite0 as the backbone of stage 3, and its ImageNet weights."""
