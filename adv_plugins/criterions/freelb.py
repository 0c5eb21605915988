"""FreeLB, free large-batch adversarial training (Zhu et al., ICLR 2020)."""

from dataclasses import dataclass
from typing import Any

from fairseq.criterions import register_criterion

from adv_plugins.criterions.ascent import Ascent, AscentConfig
from adv_plugins.methods import register_method
from adv_plugins.perturbation import sentence_norms
from adv_plugins.step import Step


@dataclass
class FreeLBCriterionConfig(AscentConfig):
    """Options of FreeLB: those of its ascent."""


@register_method(
    "freelb",
    title="FreeLB, free large-batch adversarial training",
    paper="Zhu et al., ICLR 2020",
    address="https://github.com/zhuchen03/FreeLB",
    summary="K passes, each on the last one's ascent, one dropout mask, all gradients used",
    passes="K",
)
@register_criterion("freelb_criterion", dataclass=FreeLBCriterionConfig)
class FreeLBCriterion(Ascent):
    r"""Free large-batch adversarial training: K passes, each on the last one's ascent.

    .. math::
        \delta_0 = \epsilon_0\, U(-1, 1) / \sqrt{n d}, \qquad
        L = \tfrac1K \sum_{t=1}^K CE(f(x + \delta_{t-1}), y), \qquad
        \delta_t = \Pi_{\|\cdot\|_F \le \epsilon}(\delta_{t-1} + \alpha\, g_t / \|g_t\|_F),
        \quad g_t = \nabla_\delta CE(f(x + \delta_{t-1}), y)

    for each sentence of n real tokens (Algorithm 1, Eq. 3), all passes with one dropout mask
    (section 3.3, Eq. 4). For multiple choice the perturbation of a question is that of all its
    candidates together: one norm (appendix A.1). Exactly K forwards and K backwards. The unperturbed
    sentence itself is never trained on unless ``--adv-init-eps 0``.

    Meters: ``loss`` (and all of the base's) is the first pass's, on the random start; ``adv_loss`` the
    last pass's; ``objective`` the mean over the K passes; ``perturbation_norm`` the last pass's.

    The authors' released code counts ascents after a first pass, so its ``--adv-steps 3`` is 4 here. For
    ranking it departs from the paper: CommonsenseQA's passes use the perturbation BEFORE its projection;
    QNLI's as ranking starts without the division by sqrt(d) and by both candidates' joint length, and
    never projects. Here all tasks follow Algorithm 1.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    def perturbed_forward(self, step: Step) -> Any:
        """Algorithm 1 on one batch."""
        results, gradient_norms = [], []
        deltas = self.start(step)
        for number in range(1, self.steps + 1):
            last = number == self.steps
            deltas = [delta.detach().requires_grad_(not last) for delta in deltas]
            result = step.run(deltas, last=last, same_dropout=self.reuse_dropout_mask, write=number == 1)
            results.append(result._replace(loss=result.loss.detach()))
            term = result.loss / self.steps
            if not last:
                gradients = step.backward(term, deltas)
                gradient_norms.append(sentence_norms(gradients).sum() * self.steps)
                deltas = self.ball.ascend(deltas, gradients, step.real, self.step_size)
        return self.finish(step, results, term, deltas, gradient_norms)
