"""Nets that come from elsewhere, and nets that leave: weights of other libraries, ONNX, StableHLO, the hub."""
