"""Layers that Keras does not have."""

from keras_iss.layers.rhn import RHN as RHN
from keras_iss.layers.rhn import RHNCell as RHNCell
