"""FreeLB, free large-batch adversarial training (Zhu et al., ICLR 2020)."""

from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import nn

from adv_plugins.ball import NORMS, Ball
from adv_plugins.criterions.options import check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.methods import register_method
from adv_plugins.perturbation import sentence_norms, word_embedding
from adv_plugins.step import Step


@dataclass
class FreeLBCriterionConfig(AsaAdditionConfig):
    """Options of FreeLB."""

    adv_steps: int = field(
        default=3, metadata={"help": "number K of forward and backward passes in an update"}
    )
    adv_step_size: float = field(
        default=0.1, metadata={"help": "size alpha of an ascent step, of a normalised gradient"}
    )
    adv_eps: float = field(default=0.15, metadata={"help": "largest norm of a sentence's perturbation"})
    adv_init_eps: Optional[float] = field(
        default=None,
        metadata={"help": "size of the random perturbation to start from (default: --adv-eps)"},
    )
    adv_norm: ChoiceEnum(list(NORMS)) = field(  # type: ignore[valid-type]
        default="l2", metadata={"help": "norm of the ball and of the gradient"}
    )
    adv_start_update: int = field(
        default=0, metadata={"help": "plain fine-tuning before this many updates"}
    )
    no_reuse_dropout_mask: bool = field(
        default=False,
        metadata={"help": "draw new dropout masks in every pass (Table 4's ablation)"},
    )


@register_method(
    "freelb",
    title="FreeLB, free large-batch adversarial training",
    paper="Zhu et al., ICLR 2020",
    address="https://github.com/zhuchen03/FreeLB",
    summary="K passes, each on the last one's ascent, one dropout mask, all gradients used",
    passes="K",
)
@register_criterion("freelb_criterion", dataclass=FreeLBCriterionConfig)
class FreeLBCriterion(WithAsa):
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

    ADVICE_ON_NAN = ", or a smaller --adv-eps, or a later --adv-start-update"
    LOSS_METERS = ("objective", "adv_loss")
    MEAN_METERS = ("perturbation_norm", "embedding_gradient_norm")

    def __init__(self, cfg: FreeLBCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "adv_steps", at_least=1)
        check_range(cfg, "adv_step_size", "adv_eps", "adv_start_update", at_least=0)
        self.steps = cfg.adv_steps
        self.step_size = cfg.adv_step_size
        self.ball = Ball(str(cfg.adv_norm), cfg.adv_eps)
        self.init_eps = cfg.adv_eps
        if cfg.adv_init_eps is not None:
            check_range(cfg, "adv_init_eps", at_least=0)
            self.init_eps = cfg.adv_init_eps
        self.reuse_dropout_mask = not cfg.no_reuse_dropout_mask
        self.start_update = cfg.adv_start_update

    def is_active(self) -> bool:
        """Plain fine-tuning before ``--adv-start-update``."""
        return self.update_number >= self.start_update

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def perturbed_forward(self, step: Step) -> Any:
        """Algorithm 1 on one batch."""
        results, gradient_norms = [], []
        table = step.embedding.weight
        deltas = self.ball.start(step.real, table.size(1), table.dtype, self.init_eps)
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
        meters = {"embedding_gradient_norm": gradient_norms[0]} if gradient_norms else {}
        return step.finish(
            results[0],
            term,
            torch.stack([each.loss for each in results]).mean(),
            adv_loss=results[-1].loss,
            perturbation_norm=sentence_norms(deltas).sum(),
            **meters,
        )
