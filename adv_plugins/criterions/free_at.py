"""FreeAT, adversarial training for free (Shafahi et al., NeurIPS 2019), as FreeLB's paper has it."""

from dataclasses import dataclass
from typing import Any, List

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from adv_plugins.carried_perturbation import CarriedPerturbation
from adv_plugins.criterions.ascent import BallConfig, InBall
from adv_plugins.methods import register_method
from adv_plugins.perturbation import sentence_norms
from adv_plugins.step import Step


@dataclass
class FreeAtCriterionConfig(BallConfig):
    """Options of FreeAT: those of its ball, in which K is how many updates each batch gets."""


@register_method(
    "freeat",
    title="FreeAT, adversarial training for free",
    paper="Shafahi et al., NeurIPS 2019",
    address="https://github.com/ashafahi/free_adv_train",
    summary="K updates of each batch, one after the other, on a perturbation that climbs meanwhile",
    passes="1, in K updates of a batch",
    replayed_by="adv_steps",
)
@register_criterion("free_at_criterion", dataclass=FreeAtCriterionConfig)
class FreeAtCriterion(InBall):
    r"""Each ascent of the perturbation is an update of the model, too, from one backward.

    .. math::
        L_t = CE(f(x + \delta_{t-1}; \theta_{t-1}), y), \qquad
        \theta_t = \theta_{t-1} - \tau \nabla_\theta L_t, \qquad
        \delta_t = \Pi_{\|\cdot\|_F \le \epsilon}(\delta_{t-1} + \alpha\, g_t / \|g_t\|_F),
        \quad g_t = \nabla_\delta L_t

    (Shafahi's Algorithm 1, with the ball, the norms and the start of FreeLB; FreeLB, section 3.2). Each
    batch is trained on K = ``--adv-steps`` times in a row, with its own dropout masks each time. The
    perturbation goes on from update to update, also to the next batch if that has the same shape, and
    begins anew if not. With ``--update-freq`` each batch of an update has its own.

    An update is one step of the optimizer, that is a K-th of what a batch gets: an epoch has K times the
    updates of plain fine-tuning and costs K times as much. For the cost of plain fine-tuning divide
    ``--max-epoch`` by K and leave ``--max-update`` as it is; for that of FreeLB's K passes leave the
    epochs and multiply updates and warm-up by K.

    Meters: ``loss`` (and all of the base's) and ``objective`` are of the perturbed batch, there is no
    clean pass; ``perturbation_norm``.

    FreeLB's released code (``--per-step-adv``) begins anew with every batch, calls the K steps of the
    optimizer one update, in all of which the learning rate is the same, and divides each loss by K + 1.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped,
            ``--skip-remainder-batch``, or (at the first batch) a model without word embeddings.
    """

    MEAN_METERS = ("perturbation_norm",)
    carried_alike = False  # each worker has its own batches

    def __init__(self, cfg: FreeAtCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.replays = self.steps
        self.carried: List[CarriedPerturbation] = []
        self._batch = 0

    def begin_update(self, number: int) -> None:
        """The next batch is the first one of an update."""
        super().begin_update(number)
        self._batch = 0

    def perturbed_forward(self, step: Step) -> Any:
        """One update's pass; the trainer's backward is the perturbation's, too."""
        perturbation = self.next_perturbation(step)
        result = step.run(perturbation.deltas, last=True, write=True)
        size = sentence_norms([delta.detach() for delta in perturbation.deltas]).sum()
        return step.finish(result, result.loss, result.loss, perturbation_norm=size)

    def next_perturbation(self, step: Step) -> CarriedPerturbation:
        """What the update before has left for the batch of this place in an update, or a new start."""
        place, self._batch = self._batch, self._batch + 1
        before = next(iter(self.carried[place : place + 1]), None)
        if before is not None and before.fits(step.real):
            deltas = before.climbed(self.ball, self.step_size)
        else:
            deltas = self.start(step)
        perturbation = CarriedPerturbation(deltas, step.real)
        self.carried[place : place + 1] = [perturbation]
        return perturbation

    def carried_state(self) -> List[List[Tensor]]:
        """The perturbations as the next update would begin with them."""
        return [each.climbed(self.ball, self.step_size) for each in self.carried]

    def restore_carried(self, state: List[List[Tensor]]) -> None:
        """Go on with them."""
        self.carried = [
            CarriedPerturbation(
                deltas, [torch.ones(*delta.shape[:2], 1, dtype=torch.bool) for delta in deltas]
            )
            for deltas in state
        ]
