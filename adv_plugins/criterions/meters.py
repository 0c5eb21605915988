"""What a method logs beside its base: sums over a batch and over workers, logged as fairseq's are."""

import fnmatch
import math
from typing import Any, Dict, List, Sequence

from fairseq import metrics

from adv_plugins.batch import at_least_one


def log_meters(
    logs: List[Dict[str, Any]], *, losses: Sequence[str] = (), means: Sequence[str] = ()
) -> None:
    """Log a method's own meters, those that occur in the logging outputs of a step.

    Args:
        losses: names (or patterns such as ``masked_layer*``) of losses, logged divided by the sample
            size, in base 2; means: of sums over sentences, logged as means.
    """
    sample_size = sum(log.get("sample_size", 0) for log in logs)
    sentences = sum(log.get("nsentences", 0) for log in logs)
    for key in dict.fromkeys(key for log in logs for key in log):
        if _matches(key, losses):
            scale, weight, digits = at_least_one(sample_size) * math.log(2), sample_size, 3
        elif _matches(key, means):
            scale, weight, digits = sentences, sentences, 5
        else:
            continue
        total = sum(log.get(key, 0) for log in logs)
        metrics.log_scalar(key, total / scale, weight, round=digits)


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
