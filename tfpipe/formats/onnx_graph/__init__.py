"""The ONNX graph of a classifier, and the inspection of unknown graphs: shared by the formats that hold one."""
