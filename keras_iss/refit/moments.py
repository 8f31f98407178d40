"""First and second moments of activations, gathered batch by batch."""

import numpy as np


class Moments:
    """The mean and the covariance of rows that come in batches.

    Takes the memory of one covariance, however many rows there are, and adds
    in float64.

    Args:
        size: Integer, the length of a row.
    """

    def __init__(self, size: int):
        self.size = size
        self.count = 0
        self._sum = np.zeros(size)
        self._product = np.zeros((size, size))
        # Nearly the mean, so that no covariance is a difference of large
        # numbers.
        self._shift: np.ndarray | None = None

    def add(self, rows: np.ndarray):
        """Adds an array of shape `(rows, size)`."""
        if not len(rows):
            return
        rows = rows.astype("float64")
        if self._shift is None:
            self._shift = rows.mean(axis=0)
        rows -= self._shift
        self.count += len(rows)
        self._sum += rows.sum(axis=0)
        self._product += rows.T @ rows

    @property
    def mean(self) -> np.ndarray:
        """Array of shape `(size,)`."""
        if self._shift is None:
            return self._sum
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Array of shape `(size, size)`, around the mean."""
        if not self.count:
            return self._product
        offset = self._sum / self.count
        return self._product / self.count - np.outer(offset, offset)

    def second(self, centred: bool) -> np.ndarray:
        """The covariance, or the moments around zero."""
        if centred:
            return self.covariance
        mean = self.mean
        return self.covariance + np.outer(mean, mean)
