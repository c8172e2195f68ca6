"""Logistic heads: plain, and over a bag of sentences. Trained with L-BFGS from zero, so that training is repeatable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """`sigmoid(x · weights + bias)`; weights of shape (d,)."""

    weights: Matrix
    bias: float

    def logits(self, x: Matrix) -> Matrix:
        """Logits of shape (n,) for features of shape (n, d)."""
        out: Matrix = x @ self.weights + self.bias
        return out


def pool(logits: Matrix, bags: npt.NDArray[np.int64], count: int) -> Matrix:
    """The log-sum-exp of each bag's logits, shape (count,); `bags[i]` is the bag of row i. An empty bag gets -30."""
    top = np.full(count, -np.inf)
    np.maximum.at(top, bags, logits)
    safe = np.where(np.isfinite(top), top, 0.0)
    total = np.zeros(count)
    np.add.at(total, bags, np.exp(logits - safe[bags]))
    return np.where(total > 0, safe + np.log(np.maximum(total, 1e-300)), -30.0)


def fit(x: Matrix, y: Matrix, weight: Matrix, penalty: Matrix, bags: npt.NDArray[np.int64] | None = None) -> Head:
    """Fits a head to labels `y` (0/1, one a bag) under `sum(penalty * weights**2) / 2`, bias free.

    Without `bags` each row is its own example (logistic regression); with them an example is as positive as its
    sentences are under log-sum-exp: multiple-instance learning (Dietterich et al., 1997).
    """
    index = np.arange(len(x), dtype=np.int64) if bags is None else bags
    scale = weight / weight.sum()

    def loss(theta: Matrix) -> tuple[float, Matrix]:
        rows = x @ theta[:-1] + theta[-1]
        pooled = pool(rows, index, len(y))
        value = float(scale @ (np.logaddexp(0.0, pooled) - y * pooled)) + 0.5 * float(penalty @ theta[:-1] ** 2)
        outer = scale * (expit(pooled) - y)
        inner = outer[index] * np.exp(rows - pooled[index])
        gradient = np.append(x.T @ inner + penalty * theta[:-1], inner.sum())
        return value, gradient

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12})
    return Head(np.asarray(found.x[:-1], dtype=np.float64), float(found.x[-1]))


def balanced(y: Matrix) -> Matrix:
    """Example weights that give both labels the same total."""
    positive = max(float(y.sum()), 1.0)
    negative = max(float(len(y) - y.sum()), 1.0)
    return np.where(y > 0.5, 1.0 / positive, 1.0 / negative)
