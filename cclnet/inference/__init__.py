"""A trained network on images: probabilities, predictions, evaluation, ONNX."""
