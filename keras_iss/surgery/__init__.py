"""From a model to a smaller one: components to zero, and out."""

from keras_iss.surgery.pruning import prune as prune
from keras_iss.surgery.shrinking import shrink as shrink
