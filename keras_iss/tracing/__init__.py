"""From a model to its structures.

The model's graph is walked from its inputs to its outputs. Every tensor axis
carries unit labels or nothing; a rule for each layer says what it does with
them. An operation without a rule pins what it reads, so that the walk may miss
a saving, but never breaks a model.
"""

from keras_iss.tracing.find import find_structures as find_structures
from keras_iss.tracing.registry import register_rule as register_rule
