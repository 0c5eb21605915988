"""ASA's game between a model and its adversary, as terms that any objective can be joined by."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from adv_plugins.dropout import drops_layers
from adv_plugins.errors import UserError
from adv_plugins.gradients import KeptGradients, check_one_reduction
from adv_plugins.models.asa_roberta import adversaries, biased
from adv_plugins.perturbation import captured_features, unwrap
from adv_plugins.sequential import Postponed, delivered, leaf, with_value

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
        self,
        run_base: Callable[..., Any],
        model: nn.Module,
        sample: Dict[str, Any],
        kept: Optional[KeptGradients] = None,
        *,
        clean_loss: bool = True,
    ) -> Tuple[Any, Tensor, Dict[str, Tensor]]:
        """A clean pass and one under the adversary's masks.

        Args:
            run_base: calls the base criterion once, as ``WrappingCriterion.run_base``.
            model: the model or its distributed wrapper, through which the attacked pass goes.
            kept: if given, the two passes are one after the other in memory (the attacked one is run
                once more for it), and this collects the gradients of the clean one.
            clean_loss: whether the objective includes the clean pass's loss.

        Returns:
            the clean ``BasePass``, the scalar objective, and what to log.

        Raises:
            UserError: the model has no adversaries, drops layers, or is in a distributed wrapper that
                cannot reduce the gradients of two passes.
        """
        module = unwrap(model)
        check_one_reduction(model)
        check_adversaries(module)

        def run_clean() -> Tuple[Any, List[Tensor]]:
            with self._features(module) as features:
                clean = run_base(module, sample, write=True)
            return clean, [clean.logits, *features]

        def run_attacked(differentiated: bool) -> Tuple[List[Tensor], Tensor]:
            with self._features(module) as features, biased(module) as proportions:
                attacked = run_base(model if differentiated else module, sample)
            return [attacked.logits, *features], _per_layer(proportions)

        clean, outputs = run_clean()
        if kept is None:
            attacked, masked = run_attacked(True)
            terms, log = self._terms(clean, outputs, attacked)
        else:
            postponed = Postponed(run_attacked, clean.loss.device)
            leaves = [leaf(output) for output in postponed.values[0]]
            value, log = self._terms(clean, outputs, leaves)
            gradients = kept.backward(value + clean.loss if clean_loss else value, leaves)
            clean = clean._replace(loss=clean.loss.detach(), logits=clean.logits.detach())
            value = value.detach()
            del outputs
            attacked, masked = postponed.again(True)
            terms = with_value(delivered(attacked, gradients), value)

        penalty_loss = self.tau * _per_sentence(masked.sum(), clean)
        log.update(penalty_loss=penalty_loss, masked_proportion=masked.mean(dim=0).sum())
        for layer, proportion in enumerate(masked.sum(dim=1)):
            log[f"{LAYER_KEY}{layer + 1}"] = proportion
        objective = terms + penalty_loss
        if clean_loss:
            objective = clean.loss + objective
        if kept is not None:
            objective = kept.attach(objective)
        return clean, objective, {key: value.detach() for key, value in log.items()}

    def _features(self, module: nn.Module) -> ContextManager[Sequence[Tensor]]:
        return captured_features(module) if self.pre_training else nullcontext(())

    def _terms(
        self, clean: Any, outputs: Sequence[Tensor], attacked: Sequence[Tensor]
    ) -> Tuple[Tensor, Dict[str, Tensor]]:
        """alpha L_asa of the two passes' logits and, in pre-training, final hidden states."""
        asa_loss = self.divergence(outputs[0], attacked[0])
        sentence_loss = torch.zeros_like(asa_loss)
        if self.pre_training:
            sentence_loss = _per_sentence(self.divergence(outputs[1], attacked[1]), clean)
        log = {"asa_loss": asa_loss, "sentence_asa_loss": sentence_loss}
        return self.weight * (asa_loss + sentence_loss), log


def _per_sentence(total: Tensor, clean: Any) -> Tensor:
    """One for each sentence, whatever the base divides its loss by (masked or labelled tokens)."""
    return total * clean.sample_size / clean.logging["nsentences"]


def _per_layer(proportions: List[List[Tensor]]) -> Tensor:
    """(layers, B) masked proportions; the candidates of a question are averaged."""
    return torch.stack([torch.stack(calls).mean(dim=0) for calls in proportions])


def check_adversaries(model: nn.Module) -> None:
    """Raise ValueError where the game cannot be played."""
    if not adversaries(model):
        raise UserError(
            f"ASA needs a model with adversaries, and {type(model).__name__} has none: "
            "give --arch asa_roberta, asa_roberta_base, asa_roberta_large or asa_bert_like"
        )
    if drops_layers(model):
        raise UserError("ASA compares two passes of the same layers: set --encoder-layerdrop 0")
