"""Kinds of connection: one module for a family, one function for a kind."""

from tests.fuzz.connections import attention as attention
from tests.fuzz.connections import carriers as carriers
from tests.fuzz.connections import images as images
from tests.fuzz.connections import masks as masks
from tests.fuzz.connections import merging as merging
from tests.fuzz.connections import models as models
from tests.fuzz.connections import operations as operations
from tests.fuzz.connections import own as own
from tests.fuzz.connections import recurrent as recurrent
from tests.fuzz.connections import shared as shared
from tests.fuzz.connections import states as states
from tests.fuzz.connections import weights as weights
