"""From a model to its structures.

The model's graph is walked from its inputs to its outputs. Every tensor axis
carries unit labels or nothing; a rule for each layer says what it does with
them. An operation without a rule pins what it reads, so that the walk may miss
a saving, but never breaks a model.
"""

from keras_iss.tracing.call import Call as Call
from keras_iss.tracing.find import find_structures as find_structures
from keras_iss.tracing.labels import Axis as Axis
from keras_iss.tracing.labels import Traced as Traced
from keras_iss.tracing.registry import register_rule as register_rule
from keras_iss.tracing.rules.activations import keeps_zero as keeps_zero
from keras_iss.tracing.rules.activations import (
    pin_unless_elementwise as pin_unless_elementwise,
)
from keras_iss.tracing.rules.recurrent import run_over_time as run_over_time
