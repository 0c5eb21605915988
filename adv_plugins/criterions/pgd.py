"""PGD, adversarial training by projected gradient ascent (Madry et al., ICLR 2018)."""

from dataclasses import dataclass
from typing import Any

from fairseq.criterions import register_criterion

from adv_plugins.criterions.ascent import Ascent, AscentConfig
from adv_plugins.methods import register_method
from adv_plugins.perturbation import sentence_norms
from adv_plugins.step import Step


@dataclass
class PgdCriterionConfig(AscentConfig):
    """Options of PGD: those of its ascent."""


@register_method(
    "pgd",
    title="PGD, adversarial training by projected gradient ascent",
    paper="Madry et al., ICLR 2018",
    address="https://arxiv.org/abs/1706.06083",
    summary="K passes, each on the last one's ascent, of which the last one trains the model",
    passes="1 + 2/3 (K - 1)",
)
@register_criterion("pgd_criterion", dataclass=PgdCriterionConfig)
class PgdCriterion(Ascent):
    r"""The loss at the end of an ascent, and nothing else.

    .. math::
        L = CE(f(x + \delta_{K-1}), y), \qquad
        \delta_t = \Pi_{\|\cdot\|_F \le \epsilon}(\delta_{t-1} + \alpha\, g_t / \|g_t\|_F)

    with the start and the steps of FreeLB (its Eq. 1 and 2; Tables 1 and 5 compare the two), all passes
    with one dropout mask. The K - 1 ascents want the perturbation's gradient alone: the parameters',
    about a third of a pass's work, are not computed. (Madry et al. step along the gradient's sign in an
    L-infinity ball; ``--adv-norm linf`` has the ball, with a step along the gradient.)

    Meters: ``loss`` (and all of the base's) is the first pass's, on the random start; ``adv_loss`` and
    ``objective`` the last pass's, ``perturbation_norm`` too.

    FreeLB's released code (``--std-adv``) counts ascents, so its ``--adv-steps 3`` is 4 here; where a
    sentence's gradient is 0 it divides by 0.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    def perturbed_forward(self, step: Step) -> Any:
        """K - 1 ascents and a pass on one batch."""
        first, meters = None, {}
        deltas = self.start(step)
        for _ in range(self.steps - 1):
            result, gradients = step.ascent(
                deltas, same_dropout=self.reuse_dropout_mask, write=first is None
            )
            if first is None:
                first, meters["embedding_gradient_norm"] = result, sentence_norms(gradients).sum()
            deltas = self.ball.ascend(deltas, gradients, step.real, self.step_size)
        last = step.run(deltas, last=True, same_dropout=self.reuse_dropout_mask, write=first is None)
        return step.finish(
            first or last,
            last.loss,
            last.loss,
            adv_loss=last.loss,
            perturbation_norm=sentence_norms(deltas).sum(),
            **meters,
        )
