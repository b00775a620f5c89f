"""SavedModel and ONNX."""
