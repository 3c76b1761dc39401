"""Inference with a trained network: probabilities, predictions, evaluation, ONNX."""
