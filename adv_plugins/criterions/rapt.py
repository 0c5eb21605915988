"""RAPT, multi-layer random perturbation training (Pereira et al., BlackboxNLP 2021)."""

from dataclasses import dataclass, field
from typing import Any, Tuple

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins.criterions.options import CleanConsistencyConfig, check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.divergence import full_precision, get_divergence
from adv_plugins.dropout import drops_layers
from adv_plugins.fork import encoder_layers
from adv_plugins.methods import register_method
from adv_plugins.perturbation import word_embedding
from adv_plugins.shared_draws import SharedDraws
from adv_plugins.step import Step
from fairseq_compat.errors import UserError


@dataclass
class RaptCriterionConfig(CleanConsistencyConfig, AsaAdditionConfig):
    """Options of RAPT."""

    noise_eta: float = field(
        default=2.0,
        metadata={"help": "largest absolute value eta of the noise (paper: .01 1.5 2 2.3 2.5)"},
    )
    noise_max_layer: int = field(
        default=3,
        metadata={"help": "noise goes to the output of a random layer up to this; 0: embeddings"},
    )
    noise_norm_over: ChoiceEnum(["token", "sentence"]) = field(  # type: ignore[valid-type]
        default="token", metadata={"help": "what has L-infinity norm eta: each token or sentence"}
    )


@register_method(
    "rapt",
    title="RAPT, multi-layer random perturbation training",
    paper="Pereira et al., BlackboxNLP 2021",
    address="https://aclanthology.org/2021.blackboxnlp-1.23",
    summary="noise on the output of a random layer r must not change the prediction",
    passes="2 - r/L",
)
@register_criterion("rapt_criterion", dataclass=RaptCriterionConfig)
class RaptCriterion(WithAsa):
    r"""Noise at a random layer, and the prediction must not change.

    .. math::
        r \sim U\{1..R\}, \quad \delta = \eta\, z / \|z\|_\infty, \; z \sim N(0, I), \qquad
        L = CE(f(x), y) + \alpha\, D(f(x + \delta_r), f(x))

    with delta added to the output of Transformer layer r (Algorithm 1, Eq. 2); the gradient flows
    through both arguments of D. r is drawn once a batch, the same on all workers. What lies below
    layer r is computed once. The paper does not say over what the norm goes: it is each token's here,
    as in the framework that the authors built on; ``--noise-norm-over sentence`` is the other
    reading. sigma cancels in the norm.

    The paper's D is "KL divergence"; its authors' framework takes KL(P||Q) + KL(Q||P), in each of which
    the target is detached. That is twice the value of ``bi-kl`` but about once its gradient, so their
    alpha = 1 is ``--consistency-weight 1`` here. Their loss for regression subtracts (B, 1) from (B) and
    so compares every sentence with every other; no weight reproduces that.

    Meters: ``loss`` (and all of the base's) is the clean loss; ``consistency_loss`` and ``objective``
    are in the same units; ``noise_layer`` is the mean of r.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings or without that many Transformer layers.
    """

    ADVICE_ON_NAN = ", or a smaller --noise-eta"
    LOSS_METERS = ("objective", "consistency_loss")
    MEAN_METERS = ("noise_layer",)

    def __init__(self, cfg: RaptCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "noise_eta", "noise_max_layer", "consistency_weight", at_least=0)
        self.eta = cfg.noise_eta
        self.max_layer = cfg.noise_max_layer
        self.norm_dimensions = (-1,) if str(cfg.noise_norm_over) == "token" else (0, 2)
        self.consistency_weight = cfg.consistency_weight
        self.divergence = get_divergence(str(cfg.consistency_loss), regression=self.regression)
        self.draws = SharedDraws()

    def is_active(self) -> bool:
        """Plain fine-tuning when the weight is 0."""
        return self.consistency_weight != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings, and that many layers in every pass."""
        super().check_model(model)
        if not self.is_active():
            return
        word_embedding(model)
        depth = len(encoder_layers(model))
        if self.max_layer > depth:
            raise UserError(
                f"--noise-max-layer {self.max_layer} is more than the {depth} layers of the model"
            )
        if drops_layers(model):
            raise UserError(
                "rapt_criterion computes two passes as one, which --encoder-layerdrop would give "
                "the same layers and may deprive of the noisy one: set --encoder-layerdrop 0"
            )

    def perturbed_forward(self, step: Step) -> Any:
        """Algorithm 1 on one batch."""
        layer = self.draw_layer()
        compared = step.compare_forked(
            layer,
            lambda hidden, call: self.noise(hidden, step.real[call]),
            self.divergence,
            compare_weight=self.consistency_weight,
        )
        clean = compared.passes[0].base
        return step.finish(
            clean,
            compared.term,
            compared.value,
            consistency_loss=compared.parts,
            noise_layer=layer * clean.logging["nsentences"],
        )

    def noise(self, hidden: Tensor, real: Tensor) -> Tensor:
        """delta (T, B, d) for hidden states of that shape; ``real`` (B, T, 1) is False at padding."""
        return bounded_noise(hidden, real, self.eta, self.norm_dimensions)

    def draw_layer(self) -> int:
        """r, the same on all workers."""
        return self.draws.up_to(self.max_layer) if self.max_layer else 0


def bounded_noise(
    hidden: Tensor, real: Tensor, eta: float, dimensions: Tuple[int, ...] = (-1,)
) -> Tensor:
    """eta z / ||z||_inf, z ~ N(0, 1), for (T, B, d) hidden states; the norm is over these dimensions, a
    token's own."""
    noise = torch.randn_like(full_precision(hidden)) * real.transpose(0, 1)
    size = noise.abs().amax(dim=dimensions, keepdim=True)
    return (eta * noise / size.clamp_min(1e-30)).to(hidden.dtype)
