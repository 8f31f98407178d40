"""Refit: what reads a removed component is made to do without it.

Much of what a component tells is told by others, too. What a layer reads of
the components that go is predicted from those that stay, by least squares on
data, and the prediction goes into the weights that read them: no training, no
gradient, seconds.
"""

from keras_iss.refit.fitting import Refit as Refit
from keras_iss.refit.fitting import refit_weights as refit_weights
