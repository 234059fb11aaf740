"""Neural surrogates of numerical solvers: networks, normalisation, losses, errors, storage."""

from penstock_surrogates.batch import Batch
from penstock_surrogates.constant import ConstantEmulator
from penstock_surrogates.errors import ErrorCount, FieldErrors
from penstock_surrogates.linear import LinearEmulator
from penstock_surrogates.losses import find_loss
from penstock_surrogates.normalisation import Moments, Normalisation, add_moments
from penstock_surrogates.prediction import predict
from penstock_surrogates.problem import Field, Parameter, Problem
from penstock_surrogates.registry import build, find_surrogate
from penstock_surrogates.storage import TrainedSurrogate, load, save
from penstock_surrogates.surrogate import Surrogate

__all__ = [
    "Batch",
    "ConstantEmulator",
    "ErrorCount",
    "Field",
    "FieldErrors",
    "LinearEmulator",
    "Moments",
    "Normalisation",
    "Parameter",
    "Problem",
    "Surrogate",
    "TrainedSurrogate",
    "add_moments",
    "build",
    "find_loss",
    "find_surrogate",
    "load",
    "predict",
    "save",
]
