"""`tfpipe report RUN RUN…`: finished runs side by side, on a terminal and as a page. Without TensorFlow."""
