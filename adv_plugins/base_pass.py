"""One call of the base criterion, and what it saw."""

import contextlib
from typing import Any, Dict, Iterator, NamedTuple, Sequence

import torch
from fairseq.criterions import FairseqCriterion
from torch import Tensor


class BasePass(NamedTuple):
    """One call of the base criterion.

    loss: scalar, summed over the batch; sample_size: its denominator; logging: the base's logging
    output; logits: (N, C), N sentences, questions (C candidates), masked tokens (C words) or tokens (of
    all sentences, in their order; see ``WrappingCriterion.join``), or for regression the (N, 1) outputs.
    """

    loss: Tensor
    sample_size: Any
    logging: Dict[str, Any]
    logits: Any = None

    def per_sentence(self, total: Tensor) -> Tensor:
        """A sum over sentences in the units of the loss, whatever the base divides that by: one for each
        sentence."""
        return total * self.sample_size / self.logging["nsentences"]

    def mean_of(self, passes: int) -> "BasePass":
        """What each of the passes is that were made as one batch, on average; without logits. In
        training all that a base logs is sums over the batch."""
        logging = {
            key: value // passes if isinstance(value, int) else value / passes
            for key, value in self.logging.items()
        }
        return BasePass(self.loss.detach() / passes, self.sample_size // passes, logging)


def mean_pass(passes: Sequence[BasePass]) -> BasePass:
    """What they are on average, each a pass of its own."""
    total = BasePass(
        torch.stack([each.loss.detach() for each in passes]).sum(),
        sum(each.sample_size for each in passes),
        {key: sum(each.logging[key] for each in passes) for key in passes[0].logging},
    )
    return total.mean_of(len(passes))


def counted(logits: Tensor, counts: Tensor) -> Tensor:
    """The (..., C) logits as rows, of which those that do not count are one certain prediction.

    Its divergence from itself is 0, whichever it is. To leave the rows out would be to wait for the
    device to say how many they are.
    """
    certain = logits.new_full(logits.shape[-1:], -1e4)
    certain[:1] = 0
    return torch.where(counts.unsqueeze(-1), logits, certain).flatten(end_dim=-2)


@contextlib.contextmanager
def predictions_file(base: FairseqCriterion, write: bool) -> Iterator[None]:
    """sentence_ranking writes predictions whenever it has a file: take it away for extra passes."""
    file = getattr(base, "prediction_h", None)
    if file is None or write:
        yield
        return
    base.prediction_h = None
    try:
        yield
    finally:
        base.prediction_h = file
