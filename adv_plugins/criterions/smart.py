"""SMART, smoothness-inducing adversarial regularization (Jiang et al., ACL 2020)."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Dict, List, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins.ball import Ball, Stretch
from adv_plugins.criterions.options import CleanConsistencyConfig, check_range
from adv_plugins.criterions.proximal import Proximal, ProximalConfig
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.divergence import get_divergence
from adv_plugins.methods import register_method
from adv_plugins.noise import embedding_noise
from adv_plugins.perturbation import sentence_norms, word_embedding
from adv_plugins.step import Step

REGIONS: Dict[str, Any] = {"ball": partial(Ball, "linf"), "token": Stretch}


@dataclass
class SmartCriterionConfig(ProximalConfig, CleanConsistencyConfig, AsaAdditionConfig):
    """Options of SMART; the perturbation's defaults are the paper's."""

    adv_steps: int = field(default=1, metadata={"help": "number K of ascents of the perturbation"})
    adv_step_size: float = field(default=1e-3, metadata={"help": "size eta of an ascent step"})
    adv_eps: float = field(default=1e-5, metadata={"help": "L-infinity norm eps, see --adv-projection"})
    adv_init_eps: float = field(
        default=1e-5, metadata={"help": "standard deviation sigma of the noise to start from"}
    )
    adv_projection: ChoiceEnum(list(REGIONS)) = field(  # type: ignore[valid-type]
        default="ball",
        metadata={
            "help": "ball: a normalised step, then back into the eps-ball (the paper); token: a step, "
            "then each token's perturbation is stretched to norm eps (the release, with eps 1)"
        },
    )


@register_method(
    "smart",
    title="SMART, smoothness-inducing adversarial regularization",
    paper="Jiang et al., ACL 2020",
    address="https://github.com/namisan/mt-dnn",
    summary="noise that climbs the divergence from the clean prediction must not change that",
    passes="2 + 2/3 K",
)
@register_criterion("smart_criterion", dataclass=SmartCriterionConfig)
class SmartCriterion(WithAsa):
    r"""The prediction must not change under the worst small perturbation, nor from what it was lately.

    .. math::
        L = CE(f(x), y) + \alpha\, D(f(x + z), f(x)) + \mu\, D(f(x), f(x; \tilde\theta)), \qquad
        z \sim N(0, \sigma^2 I), \text{ then K times }
        z \leftarrow \Pi_{\|\cdot\|_\infty \le \epsilon}(z + \eta\, g / \|g\|_\infty), \\
        g = \nabla_z D(f(x + z), f(x)), \qquad
        \tilde\theta \leftarrow \beta \tilde\theta + (1 - \beta) \theta \text{ once an update}

    (Algorithm 1; norms of a sentence, for multiple choice of a question). The gradient flows through
    both arguments of the first D. The K ascents want the perturbation's gradient alone, two thirds of a
    pass's work; the averaged model's forward, with mu, is a third. Each pass draws its own dropout
    masks, as in the release: at the paper's eps they are most of the difference. The paper's D is
    KL(P||Q) + KL(Q||P), twice ``bi-kl``: its lambda = 1 and mu = 1 are weights of 2 here (for
    regression, of 1).

    Meters: ``loss`` (and all of the base's) is the clean loss; ``consistency_loss``, ``bregman_loss``
    (with mu) and ``objective`` are in the same units; ``perturbation_norm`` is a sentence's L2 norm.

    The authors' released code (mt-dnn) adds eta g itself and then stretches each token's z to a largest
    number of 1 (``--adv-projection token --adv-eps 1``), but above the embeddings' layer norm. It climbs
    a difference of log odds with its weights detached, and trains on KL(P||Q) + KL(Q||P) with both
    targets detached: twice our value, about once our gradient, so its alpha = 1 is a weight of 1. It has
    no averaged model.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    ADVICE_ON_NAN = ", or a smaller --adv-eps"
    LOSS_METERS = ("objective", "consistency_loss", "bregman_loss")
    MEAN_METERS = ("perturbation_norm",)
    carried_alike = True  # the averaged model

    def __init__(self, cfg: SmartCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(
            cfg,
            "adv_steps",
            "adv_step_size",
            "adv_eps",
            "adv_init_eps",
            "consistency_weight",
            at_least=0,
        )
        self.steps, self.step_size, self.init_eps = cfg.adv_steps, cfg.adv_step_size, cfg.adv_init_eps
        self.region = REGIONS[str(cfg.adv_projection)](cfg.adv_eps)
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)
        self.proximal = Proximal(cfg)

    def is_active(self) -> bool:
        """Plain fine-tuning when both weights are 0."""
        return self.consistency_weight != 0 or self.proximal.weight != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def perturbed_forward(self, step: Step) -> Any:
        """A clean pass, K ascents and a noisy pass on one batch."""
        noise: List[Tensor] = []
        lately = self.proximal.logits(step, self.update_number) if self.proximal.weight else None

        def find(clean: Tensor) -> List[Tensor]:
            noise.extend(self.climb(step, clean))
            return noise

        def compare(noisy: Tensor, clean: Tensor) -> Tensor:
            parts = [self.divergence(noisy, clean)]
            if lately is not None:
                parts.append(self.divergence(clean, lately))
            return torch.stack(parts)

        weights = (self.consistency_weight, self.proximal.weight)
        compared = step.compare_from_clean(find, compare, compare_weights=weights)
        meters = dict(zip(("consistency_loss", "bregman_loss"), compared.parts))
        meters["perturbation_norm"] = sentence_norms(noise).sum()
        return step.finish(compared.first, compared.term, compared.value, **meters)

    def climb(self, step: Step, clean: Tensor) -> List[Tensor]:
        """z after K ascents of the divergence from the clean logits, (B, T, d) for each call."""
        deltas = embedding_noise(step, "normal", self.init_eps)
        for _ in range(self.steps):
            _, gradients = step.ascent(deltas, lambda noisy: self.divergence(noisy.logits, clean))
            deltas = self.region.ascend(deltas, gradients, step.real, self.step_size)
        return deltas

    def carried_state(self) -> Optional[Dict[str, Any]]:
        """The averaged model."""
        return self.proximal.state()

    def restore_carried(self, state: Optional[Dict[str, Any]]) -> None:
        """Go on with it."""
        self.proximal.restore(state)
