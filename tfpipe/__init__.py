"""tfpipe: labeled text in, a verified and compressed classifier out."""

import os

from tfpipe import tpu_environment

__version__ = "0.1.0"

# TF-MOT knows Keras 2 only. TensorFlow reads this variable once, when `tf.keras` is first touched, so it is set
# here, before any module of the package can import TensorFlow.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# What TensorFlow's C++ side logs on every machine without a GPU says nothing; its failures arrive as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tpu_environment.set_variables()
