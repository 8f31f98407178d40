"""Keras models as ONNX files, written node by node, without TensorFlow."""
