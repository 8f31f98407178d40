"""The rules, one file for each family. Importing registers them."""

from keras_iss.tracing.rules import attention as attention
from keras_iss.tracing.rules import carriers as carriers
from keras_iss.tracing.rules import dense as dense
from keras_iss.tracing.rules import elementwise as elementwise
from keras_iss.tracing.rules import indexing as indexing
from keras_iss.tracing.rules import merging as merging
from keras_iss.tracing.rules import normalization as normalization
from keras_iss.tracing.rules import products as products
from keras_iss.tracing.rules import recurrent as recurrent
from keras_iss.tracing.rules import reductions as reductions
from keras_iss.tracing.rules import shapes as shapes
