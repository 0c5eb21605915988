"""fairseq's batches: the token ids in them, and a batch repeated to make several passes one."""

from typing import Any, Dict, List

import torch
from torch import Tensor

# Token labelling: the target of a position without a label (specials, padding, word continuations).
NO_LABEL = -100


def source_tokens(sample: Dict[str, Any]) -> List[Tensor]:
    """The (B, T) token ids of each model call that a base criterion makes for ``sample``, in order.

    One call for ``net_input``; for ranking tasks one for each candidate's ``net_input1``, ...
    """
    if "net_input" in sample:
        return [sample["net_input"]["src_tokens"]]
    count = sum(key.startswith("net_input") for key in sample)
    return [sample[f"net_input{index + 1}"]["src_tokens"] for index in range(count)]


def at_least_one(count: Any) -> Any:
    """A count to divide by, a number or a tensor, where there may be nothing to count: all padding, no
    labelled or masked token. What is divided is 0 then."""
    return count.clamp(min=1) if torch.is_tensor(count) else max(count, 1)


def repeat_sample(sample: Any, times: int) -> Any:
    """``sample`` with its rows repeated: row b of copy k is row ``k * B + b``.

    Tensors (B, ...) become (times * B, ...); the counts ``ntokens`` and ``nsentences`` are
    multiplied; everything else stays.
    """
    if isinstance(sample, dict):
        return {
            key: value * times if key in ("ntokens", "nsentences") else repeat_sample(value, times)
            for key, value in sample.items()
        }
    if torch.is_tensor(sample) and sample.dim() > 0:
        return sample.repeat(times, *[1] * (sample.dim() - 1))
    return sample
