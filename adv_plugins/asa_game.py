"""ASA's game between a model and its adversary, as terms that any objective can be joined by."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, ContextManager, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.base_pass import BasePass
from adv_plugins.dropout import drops_layers
from adv_plugins.models.asa_roberta import adversaries, biased
from adv_plugins.step import Pass, Ran, Step
from fairseq_compat.errors import UserError

LOSS_METERS = ("objective", "asa_loss", "sentence_asa_loss", "penalty_loss")
LAYER_METER = "masked_layer"  # and the layer's number from 1
MEAN_METERS = ("masked_proportion", f"{LAYER_METER}*")

# A context within which the self-attentions of a model are masked; see ``masked_layers``.
Masks = Callable[[nn.Module], ContextManager[List[List[Tensor]]]]


@dataclass(frozen=True)
class AsaGame:
    """alpha L_asa + tau L_c, with the adversary's gradient reversed (ASA, Eq. 9 and 10).

    tau is None where masks have no price: no adversary chooses them, and there is no L_c.
    ``pre_training`` says that the base is masked LM: then L_asa also compares the final hidden states
    (softmax over their units) of the first position.
    """

    weight: float
    tau: Optional[float]
    divergence: Callable[[Tensor, Tensor], Tensor]
    pre_training: bool

    def play(
        self, step: Step, *, clean_weight: float, masks: Masks = biased, write: bool = False
    ) -> Tuple[BasePass, Tensor, Tensor, Dict[str, Any]]:
        """A clean pass and one under masks.

        Args:
            clean_weight: of the clean pass's loss in the objective.
            masks: whose; the adversary's.

        Returns:
            the clean pass, the term that is left to differentiate and the objective's value (as for
            ``Step.finish``), and what to log.
        """
        compared = step.compare(
            [
                Pass(weight=clean_weight, write=write),
                Pass(within=partial(masks, step.module)),
            ],
            self._divergences,
            compare_weight=self.weight,
            features=self.pre_training,
        )
        clean, attacked = compared.passes
        masked = _per_layer(attacked.inside)
        term, value = compared.term, compared.value
        log = {"asa_loss": compared.parts[0]}
        if self.tau is not None:
            penalty = self.tau * clean.base.per_sentence(masked.sum())
            term, value = term + penalty, value + penalty.detach()
            log["penalty_loss"] = penalty.detach()
        if self.pre_training:
            log["sentence_asa_loss"] = compared.parts[1]
        log["masked_proportion"] = masked.mean(dim=0).sum().detach()
        for layer, proportion in enumerate(masked.detach().sum(dim=1), start=1):
            log[f"{LAYER_METER}{layer}"] = proportion
        return clean.base, term, value, log

    def _divergences(self, passes: List[Ran]) -> Tensor:
        """L_asa of the logits and, in pre-training, of the final hidden states."""
        clean, attacked = passes
        divergences = [self.divergence(*pair) for pair in zip(clean.outputs, attacked.outputs)]
        return torch.stack([divergences[0], *map(clean.base.per_sentence, divergences[1:])])


def _per_layer(proportions: List[List[Tensor]]) -> Tensor:
    """(layers, B) masked proportions; the candidates of a question are averaged."""
    return torch.stack([torch.stack(calls).mean(dim=0) for calls in proportions])


def check_adversaries(model: nn.Module) -> None:
    """Raise UserError where the game cannot be played."""
    if not adversaries(model):
        raise UserError(
            f"ASA needs a model with adversaries, and {type(model).__name__} has none: "
            "give --arch asa_roberta, asa_roberta_base, asa_roberta_large or asa_bert_like"
        )
    check_same_layers(model)


def check_same_layers(model: nn.Module) -> None:
    """Raise UserError where two passes may not have the same layers."""
    if drops_layers(model):
        raise UserError("ASA compares two passes of the same layers: set --encoder-layerdrop 0")
