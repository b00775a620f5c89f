"""The ONNX graph of a classifier, and what a graph of unknown origin would do: shared by the formats that hold one."""
