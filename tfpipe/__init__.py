"""tfpipe: labelled text in, a verified and compressed classifier out."""

import os

__version__ = "0.1.0"

# TF-MOT knows Keras 2 only. TensorFlow reads this variable once, when `tf.keras` is first touched, so it is set
# here, before any module of the package can import TensorFlow.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
