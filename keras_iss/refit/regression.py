"""Ridge regression of what goes on what stays, from moments alone."""

import dataclasses

import numpy as np

from keras_iss.refit.moments import Moments

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges that are tried, as parts of the mean variance of what stays."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """A linear prediction of some columns from others.

    Attributes:
        factors: Array of shape `(stay, gone)`.
        constant: Array of shape `(gone,)`.
        ridge: Float, as a part of the mean variance of what stays.
    """

    factors: np.ndarray
    constant: np.ndarray
    ridge: float


class Regression:
    """Predicts columns that go from columns that stay.

    The covariance of what stays is taken apart once, for all ridges.

    Args:
        moments: `Moments` of the rows.
        stay: Integer array, the columns that stay.
        gone: Integer array, the columns that go.
        intercept: Boolean, whether the prediction may have a constant.
    """

    def __init__(
        self,
        moments: Moments,
        stay: np.ndarray,
        gone: np.ndarray,
        intercept: bool,
    ):
        self._stay, self._gone = stay, gone
        self._intercept = intercept
        self._mean = moments.mean
        second = moments.second(intercept)
        self._values, self._vectors = np.linalg.eigh(second[np.ix_(stay, stay)])
        self._values = np.maximum(self._values, 0)
        self._projected = self._vectors.T @ second[np.ix_(stay, gone)]

    def solve(self, ridge: float) -> Prediction:
        """The prediction with a ridge, a part of the mean variance."""
        unit = self._values.mean() if len(self._values) else 0.0
        damped = self._values + ridge * unit
        inverse = np.divide(
            1, damped, out=np.zeros_like(damped), where=damped > 0
        )
        factors = self._vectors @ (inverse[:, None] * self._projected)
        constant = np.zeros(len(self._gone))
        if self._intercept:
            constant = self._mean[self._gone] - self._mean[self._stay] @ factors
        return Prediction(factors, constant, ridge)

    def best(
        self, held_back: Moments, weights: np.ndarray, least: float = 0.0
    ) -> Prediction:
        """The prediction with the ridge that errs least on other rows.

        Args:
            held_back: `Moments` of rows that the regression has not seen.
            weights: Array of shape `(gone, outputs)`, by which the columns
                that go are read: an error counts as what it changes there.
            least: Float, the least ridge that is tried.
        """
        predictions = [self.solve(ridge) for ridge in RIDGES if ridge >= least]
        errors = [
            self._error(held_back, prediction, weights)
            for prediction in predictions
        ]
        return predictions[int(np.argmin(errors))]

    def _error(self, moments, prediction, weights):
        """The mean square of what the prediction's error changes."""
        stay, gone = self._stay, self._gone
        read = prediction.factors @ weights
        covariance = moments.covariance
        mixed = covariance[np.ix_(stay, gone)] @ weights
        square = (
            np.sum(weights * (covariance[np.ix_(gone, gone)] @ weights))
            - 2 * np.sum(read * mixed)
            + np.sum(read * (covariance[np.ix_(stay, stay)] @ read))
        )
        mean = moments.mean
        offset = mean[gone] - mean[stay] @ prediction.factors
        offset = (offset - prediction.constant) @ weights
        return square + np.sum(np.square(offset))
