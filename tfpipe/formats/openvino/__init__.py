"""OpenVINO's own format of a graph, in a folder that optimum-intel and OpenVINO Model Server open."""
