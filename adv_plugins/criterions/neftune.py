"""NEFTune, noisy embeddings in fine-tuning (Jain et al., ICLR 2024)."""

import math
from dataclasses import dataclass, field
from typing import Any

from fairseq.criterions import register_criterion
from torch import nn

from adv_plugins.ball import Ball
from adv_plugins.criterions.options import check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.methods import register_method
from adv_plugins.perturbation import sentence_norms, word_embedding
from adv_plugins.step import Step


@dataclass
class NeftuneCriterionConfig(AsaAdditionConfig):
    """Options of NEFTune."""

    noise_alpha: float = field(
        default=5.0, metadata={"help": "size alpha of the noise (paper: 5, 10, 15)"}
    )


@register_method(
    "neftune",
    title="NEFTune, noisy embeddings in fine-tuning",
    paper="Jain et al., ICLR 2024",
    address="https://github.com/neelsjain/NEFTune",
    summary="one pass, with uniform noise on the word embeddings",
    passes="1",
)
@register_criterion("neftune_criterion", dataclass=NeftuneCriterionConfig)
class NeftuneCriterion(WithAsa):
    r"""Plain fine-tuning on noisy word embeddings.

    .. math:: L = CE(f(x + z), y), \qquad z = \alpha\, u / \sqrt{T d}, \quad u \sim U(-1, 1)

    for a sentence of T real tokens (Algorithm 1; for a question of multiple choice: of all its
    candidates). The expected norm of z is about alpha / sqrt(3), whatever the length. The paper trains
    language models to follow instructions; the noise is the same here.

    Meters: ``loss`` (and all of the base's) is the noisy pass's; ``perturbation_norm`` is the L2 norm of
    a sentence's noise.

    Hugging Face's ``neftune_noise_alpha`` counts padding in T and puts noise on it, too; the authors'
    released code does neither.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings.
    """

    ADVICE_ON_NAN = ", or a smaller --noise-alpha"
    LOSS_METERS = ("objective",)
    MEAN_METERS = ("perturbation_norm",)

    def __init__(self, cfg: NeftuneCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "noise_alpha", at_least=0)
        self.alpha = cfg.noise_alpha

    def is_active(self) -> bool:
        """Plain fine-tuning without noise."""
        return self.alpha != 0

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def perturbed_forward(self, step: Step) -> Any:
        """Algorithm 1 on one batch."""
        table = step.embedding.weight
        noise = Ball("l2", math.inf).start(step.real, table.size(1), table.dtype, self.alpha)
        noisy = step.run(noise, last=True, write=True)
        return step.finish(noisy, noisy.loss, noisy.loss, perturbation_norm=sentence_norms(noise).sum())
