"""GLUE's scores, by scikit-learn and scipy, over all predictions of a split."""

import math
import warnings
from typing import Any, Callable, Dict, List

import numpy as np
from fairseq.logging.meters import MetersDict

PREDICTIONS_KEY = "_predictions"

Score = Callable[[np.ndarray, np.ndarray], float]


# The libraries are imported where they are used: they would slow down every start otherwise.
def matthews(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Matthews correlation coefficient (CoLA)."""
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(targets, predictions)


def f1(predictions: np.ndarray, targets: np.ndarray) -> float:
    """F1 of 1, the positive one of two classes (MRPC, QQP)."""
    from sklearn.metrics import f1_score

    return f1_score(targets, predictions, pos_label=1, zero_division=0)


def accuracy_and_f1(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean of accuracy and F1."""
    return (float(np.mean(predictions == targets)) + f1(predictions, targets)) / 2


def pearson(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Pearson correlation (STS-B)."""
    from scipy.stats import pearsonr

    return pearsonr(predictions, targets)[0]


def spearman(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Spearman rank correlation (STS-B)."""
    from scipy.stats import spearmanr

    return spearmanr(predictions, targets)[0]


def pearson_and_spearman(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean of Pearson and Spearman."""
    return (pearson(predictions, targets) + spearman(predictions, targets)) / 2


# flag of the criterion -> meter -> score
SCORES: Dict[str, Dict[str, Score]] = {
    "report_mcc": {"mcc": matthews},
    "report_acc_and_f1": {"f1": f1, "acc_and_f1": accuracy_and_f1},
    "report_pearson_and_spearman": {
        "pearson": pearson,
        "spearman": spearman,
        "pearson_and_spearman": pearson_and_spearman,
    },
}


class PredictionsMeter(MetersDict._DerivedMeter):
    """All predictions and targets so far.

    A derived meter, because fairseq neither saves those in checkpoints nor tries to load them (it
    can only load meters that it knows by name).
    """

    def __init__(self) -> None:
        super().__init__(fn=None)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._predictions: List[np.ndarray] = []
        self._targets: List[np.ndarray] = []

    def update(self, predictions: Any, targets: Any) -> None:
        """Append (N,) predictions and targets."""
        self._predictions.append(np.asarray(predictions))
        self._targets.append(np.asarray(targets))

    def score(self, score: Score) -> float:
        """``score`` in percent, rounded to two decimals; 0 where it is undefined (constant input)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(score(np.concatenate(self._predictions), np.concatenate(self._targets)))
        return round(100 * value, 2) if math.isfinite(value) else 0.0
