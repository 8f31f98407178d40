"""Data sets for TensorFlow Datasets."""
