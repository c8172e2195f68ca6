"""Logistic heads, trained with L-BFGS from zero, so that training is repeatable."""

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


def fit(x: Matrix, y: Matrix, weight: Matrix, penalty: Matrix) -> Head:
    """Logistic regression on labels `y` (0/1, shape (n,)) under `sum(penalty * weights**2) / 2`; the bias goes free.

    `weight` (n,) weighs the examples and is scaled to sum 1; `penalty` has shape (d,).
    """
    scale = weight / weight.sum()

    def loss(theta: Matrix) -> tuple[float, Matrix]:
        logits = x @ theta[:-1] + theta[-1]
        value = float(scale @ (np.logaddexp(0.0, logits) - y * logits)) + 0.5 * float(penalty @ theta[:-1] ** 2)
        outer = scale * (expit(logits) - y)
        return value, np.append(x.T @ outer + penalty * theta[:-1], outer.sum())

    options = {"maxiter": 500, "ftol": 1e-12}
    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    return Head(np.asarray(found.x[:-1], dtype=np.float64), float(found.x[-1]))


def balanced(y: Matrix) -> Matrix:
    """Example weights that give both labels the same total."""
    positive = max(float(y.sum()), 1.0)
    negative = max(float(len(y) - y.sum()), 1.0)
    return np.where(y > 0.5, 1.0 / positive, 1.0 / negative)
