"""The one representation: slices, structures, and the structures of a model.

A *component* is one hidden unit with every weight it owns, in every layer. A
*structure* is all the components of one layer axis. Where a structure lies in
one variable is a *slice*. Penalty, pruning, reports and surgery are computed
from slices alone; nothing here knows what an LSTM is.
"""

from keras_iss.structures.collection import Structures as Structures
from keras_iss.structures.slices import Slice as Slice
from keras_iss.structures.structure import Structure as Structure
