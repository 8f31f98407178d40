"""Structured sparsity for recurrent Keras models."""

from keras_iss import layers as layers
from keras_iss import tfmot as tfmot
from keras_iss.budget import ISSBudget as ISSBudget
from keras_iss.callbacks import ISSLogger as ISSLogger
from keras_iss.callbacks import ISSPruneCallback as ISSPruneCallback
from keras_iss.costs.measuring import measure_costs as measure_costs
from keras_iss.costs.probes import write_cost_probes as write_cost_probes
from keras_iss.costs.table import CostTable as CostTable
from keras_iss.export import export_onnx as export_onnx
from keras_iss.export import export_saved_model as export_saved_model
from keras_iss.export import export_tflite as export_tflite
from keras_iss.importance import (
    estimate_importance as estimate_importance,
)
from keras_iss.optimizers import ProximalISS as ProximalISS
from keras_iss.regularizers import ISSRegularizer as ISSRegularizer
from keras_iss.report import report as report
from keras_iss.runtimes import benchmark as benchmark
from keras_iss.runtimes import compare as compare
from keras_iss.runtimes import evaluate as evaluate
from keras_iss.surgery import prune as prune
from keras_iss.surgery import shrink as shrink
from keras_iss.torch_modules import from_torch as from_torch
from keras_iss.tracing import find_structures as find_structures
from keras_iss.tracing import register_rule as register_rule
from keras_iss.training import fit as fit
from keras_iss.version import __version__ as __version__
