"""LiteRT files: converted, quantized, looked into, compared. TensorFlow is imported here alone."""
