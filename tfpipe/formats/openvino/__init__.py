"""OpenVINO's own format of a graph, in a folder that optimum-intel and OpenVINO Model Server open."""

import sys

# `import openvino` reports itself to its makers, and writes an identity into the home directory. Where this package is
# absent, it takes a stand-in of its own that does neither.
sys.modules.setdefault("openvino_telemetry", None)
