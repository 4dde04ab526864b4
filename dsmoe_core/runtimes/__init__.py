"""Who computes stages 3 to 10 and the head: eager PyTorch, ONNX Runtime or OpenVINO, all with one answer."""
