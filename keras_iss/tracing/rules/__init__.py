"""The rules, one file for each family of layers. Importing registers them."""

from keras_iss.tracing.rules import attention as attention
from keras_iss.tracing.rules import carriers as carriers
from keras_iss.tracing.rules import dense as dense
from keras_iss.tracing.rules import merging as merging
from keras_iss.tracing.rules import normalization as normalization
from keras_iss.tracing.rules import operations as operations
from keras_iss.tracing.rules import recurrent as recurrent
