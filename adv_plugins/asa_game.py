"""ASA's game between a model and its adversary, as terms that any objective can be joined by."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.dropout import drops_layers
from adv_plugins.gradients import check_one_reduction
from adv_plugins.models.asa_roberta import adversaries, biased
from adv_plugins.perturbation import captured_features, unwrap

LAYER_KEY = "masked_layer"  # prefix of the meters of the masked proportion, followed by the layer

Divergence = Callable[[Tensor, Tensor], Tensor]


@dataclass
class AsaGame:
    """alpha L_asa + tau L_c, with the adversary's gradient reversed (ASA, Eq. 9 and 10).

    ``pre_training`` says that the base is masked LM: then L_asa also compares the final hidden states
    (softmax over their units) of the first position.
    """

    weight: float
    tau: float
    divergence: Divergence
    pre_training: bool

    def play(
        self, run_base: Callable[..., Any], model: nn.Module, sample: Dict[str, Any]
    ) -> Tuple[Any, Tensor, Dict[str, Tensor]]:
        """A clean pass and one under the adversary's masks.

        Args:
            run_base: calls the base criterion once, as ``WrappingCriterion.run_base``.
            model: the model or its distributed wrapper, through which the second pass goes.

        Returns:
            the clean ``BasePass``, the scalar to add to the objective, and what to log.

        Raises:
            ValueError: the model has no adversaries, drops layers, or is in a distributed wrapper that
                cannot reduce the gradients of two passes.
        """
        module = unwrap(model)
        check_one_reduction(model)
        check_adversaries(module)
        features: Any = captured_features if self.pre_training else nullcontext
        with features(module) as clean_features:
            clean = run_base(module, sample, write=True)
        with features(module) as biased_features, biased(module) as proportions:
            attacked = run_base(model, sample)

        # One for each sentence, whatever the base divides its loss by (masked or labelled tokens).
        def per_sentence(total: Tensor) -> Tensor:
            return total * clean.sample_size / clean.logging["nsentences"]

        asa_loss = self.divergence(clean.logits, attacked.logits)
        sentence_loss = torch.zeros_like(asa_loss)
        if self.pre_training:
            sentence_loss = per_sentence(self.divergence(clean_features[0], biased_features[0]))
        masked = _per_layer(proportions)
        penalty_loss = self.tau * per_sentence(masked.sum())
        log = {
            "asa_loss": asa_loss,
            "sentence_asa_loss": sentence_loss,
            "penalty_loss": penalty_loss,
            "masked_proportion": masked.mean(dim=0).sum(),
        }
        for layer, proportion in enumerate(masked.sum(dim=1)):
            log[f"{LAYER_KEY}{layer + 1}"] = proportion
        terms = self.weight * (asa_loss + sentence_loss) + penalty_loss
        return clean, terms, {key: value.detach() for key, value in log.items()}


def _per_layer(proportions: List[List[Tensor]]) -> Tensor:
    """(layers, B) masked proportions; the candidates of a question are averaged."""
    return torch.stack([torch.stack(calls).mean(dim=0) for calls in proportions])


def check_adversaries(model: nn.Module) -> None:
    """Raise ValueError where the game cannot be played."""
    if not adversaries(model):
        raise ValueError(
            f"ASA needs a model with adversaries, and {type(model).__name__} has none: "
            "give --arch asa_roberta, asa_roberta_base, asa_roberta_large or asa_bert_like"
        )
    if drops_layers(model):
        raise ValueError("ASA compares two passes of the same layers: set --encoder-layerdrop 0")
