"""A batch repeated several times, so that several passes are one forward."""

from typing import Any

import torch


def repeat_sample(sample: Any, times: int) -> Any:
    """``sample`` with its rows repeated: row b of copy k is row ``k * B + b``.

    Tensors (B, ...) become (times * B, ...); the counts ``ntokens`` and ``nsentences`` are
    multiplied; everything else stays.
    """
    if isinstance(sample, dict):
        return {
            key: value * times
            if key in ("ntokens", "nsentences")
            else repeat_sample(value, times)
            for key, value in sample.items()
        }
    if torch.is_tensor(sample) and sample.dim() > 0:
        return sample.repeat(times, *[1] * (sample.dim() - 1))
    return sample
