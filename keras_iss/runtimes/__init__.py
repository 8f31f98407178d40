"""Models in whatever form they are kept, run and measured alike.

A Keras model, and `.keras`, SavedModel, `.tflite` and `.onnx` files become a
`Runner` each, which takes arrays and gives outputs by name. `compare`,
`evaluate` and `benchmark` are made of those. The package knows nothing of
structures; each runtime is imported only when a file needs it.
"""

from keras_iss.runtimes.comparison import compare as compare
from keras_iss.runtimes.evaluation import evaluate as evaluate
from keras_iss.runtimes.latency import benchmark as benchmark
