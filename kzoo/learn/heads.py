"""Linear classifiers on features of a few images: ridge regression in closed form, and softmax.

Both are penalized by the squares of their weights, so neither notices a rotation of its inputs.
`coordinates` turns the features of n images onto the n axes, at most, that these images span: there
the normal equations are diagonal, one decomposition serves every penalty and every head, and a step
costs n per image where it cost the thousands of features before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PENALTIES = tuple(10.0 ** np.arange(-2, 2.5, 0.5))
"""Of the ridge, tried; in units of the mean squared norm of the standardized images."""
ONE_SHOT = 1.0
"""The ridge's penalty where leaving one image out leaves a class without any."""
SHARPNESS = 4.0
"""What ridge scores, which aim at -1 and 1, are multiplied with to be taken for logits. On
pretrained features of photos the test log-loss was least at 3 to 6, for 2 to 10 classes of 1 to 16
images."""
SOFTMAX_PENALTY = 0.03
"""Of the softmax head, in units as above: the sum of the losses of all images, and this much. On
the same photos 0.01 to 0.1 had the least test log-loss."""
ITERATIONS = 100
LEAST_SPREAD = 0.5
"""A feature's standard deviation counts as half the mean one at least. With one image per class the
few that happen to agree in a feature would else decide everything: 22 % right became 34 %."""


@dataclass(frozen=True)
class Head:
    """Scores of ``x`` are ``scale * (x @ weights + bias)``, logits of the classes.

    Attributes:
        weights, bias: (r, classes) and (classes,).
        scale: of the scores.
        penalty: on the squared weights.
        iterations: of the optimizer; 0 for the closed form.
    """

    weights: np.ndarray
    bias: np.ndarray
    penalty: float
    scale: float = 1.0
    iterations: int = 0

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(n, r) -> (n, classes)."""
        return self.scale * (x @ self.weights + self.bias)


def coordinates(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardizes features and turns them onto the axes that the training images span.

    Mean and standard deviation are those of ``train``, whose rows get a mean squared norm of 1.

    Args:
        train: (n, d).
        test: (m, d).

    Returns:
        float64 (n, r) with orthogonal columns, and (m, r), r being min(n, d) at most.
    """
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.maximum(spread, LEAST_SPREAD * spread.mean())
    if not spread.any():  # images of one colour: there is nothing to learn from
        return np.zeros((len(train), 1)), np.zeros((len(test), 1))
    train, test = (train - mean) / spread, (test - mean) / spread
    scale = np.sqrt((train**2).sum() / len(train))
    train, test = train / scale, test / scale
    dual = train.shape[0] < train.shape[1]
    variances, axes = np.linalg.eigh(train @ train.T if dual else train.T @ train)
    kept = variances > 1e-10 * variances[-1]
    axes = axes[:, kept]
    if dual:
        axes = train.T @ (axes / np.sqrt(variances[kept]))
    return train @ axes, test @ axes


def ridge(x: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    """Least squares on targets -1 and 1 with a penalty on the squared weights, in closed form.

    The penalty is the one of `PENALTIES` with the least squared error when every image in turn is
    left out, which the hat matrix tells without training again; `ONE_SHOT` where some class has a
    single image.

    Args:
        x: (n, r), of `coordinates`: centred, with orthogonal columns.
        labels: integers (n,).
        classes: how many there are.
    """
    targets = 2 * np.eye(classes)[labels] - 1
    bias = targets.mean(axis=0)
    variances = (x**2).sum(axis=0)
    correlations = x.T @ targets

    def left_out_error(penalty: float) -> float:
        fitted = bias + x @ (correlations / (variances + penalty)[:, None])
        leverage = 1 / len(x) + (x**2) @ (1 / (variances + penalty))
        return float((((targets - fitted) / (1 - leverage)[:, None]) ** 2).mean())

    single = np.bincount(labels, minlength=classes).min() < 2
    penalty = ONE_SHOT if single else min(PENALTIES, key=left_out_error)
    weights = correlations / (variances + penalty)[:, None]
    return Head(weights, bias, penalty, scale=SHARPNESS)


def softmax_regression(
    x: np.ndarray,
    labels: np.ndarray,
    classes: int,
    watch: Callable[[Head], None] | None = None,
) -> Head:
    """Multinomial logistic regression by L-BFGS on all images, from zero.

    Args:
        x: (n, r).
        labels: integers (n,).
        classes: how many there are.
        watch: called after every iteration.
    """
    from scipy.optimize import minimize

    count, size = len(x), x.shape[1] * classes
    targets = np.eye(classes)[labels]
    iterations = 0

    def head(parameters: np.ndarray) -> Head:
        weights, bias = parameters[:size].reshape(-1, classes), parameters[size:]
        return Head(weights, bias, SOFTMAX_PENALTY, iterations=iterations)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        now = head(parameters)
        logs = log_softmax(now.logits(x))
        slope = np.exp(logs) - targets
        loss = SOFTMAX_PENALTY / 2 * (now.weights**2).sum() - (logs * targets).sum()
        by_weights = x.T @ slope + SOFTMAX_PENALTY * now.weights
        return loss / count, np.concatenate([by_weights.ravel(), slope.sum(axis=0)]) / count

    def each_iteration(parameters: np.ndarray) -> None:
        nonlocal iterations
        iterations += 1
        if watch:
            watch(head(parameters))

    found = minimize(
        objective,
        np.zeros(size + classes),
        jac=True,
        method="L-BFGS-B",
        callback=each_iteration,
        options={"maxiter": ITERATIONS},
    )
    return head(found.x)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, (n, classes), finite where they are."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share whose largest logit is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-probability of the label, in nats."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())
