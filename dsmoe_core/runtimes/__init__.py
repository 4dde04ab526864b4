"""Runtimes for stages 3 to 10 and the head: eager PyTorch, ONNX Runtime and OpenVINO, with the same
output."""
