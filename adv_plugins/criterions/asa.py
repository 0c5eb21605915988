"""ASA, adversarial self-attention (Wu et al., AAAI 2023)."""

from dataclasses import dataclass, field
from typing import Any, ContextManager, List, Optional

from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins import asa_game
from adv_plugins.asa_game import AsaGame, check_adversaries, check_same_layers
from adv_plugins.criterions.base_choice import WrappingCriterionConfig
from adv_plugins.criterions.options import CleanConsistencyConfig, check_range
from adv_plugins.criterions.wrapping import WrappingCriterion
from adv_plugins.divergence import get_divergence
from adv_plugins.fork import encoder_layers
from adv_plugins.methods import register_method
from adv_plugins.models.asa_roberta import biased
from adv_plugins.naive_masks import DEFAULT_RATE, MEASURED_SCHEDULE, naive_masks
from adv_plugins.step import Step

MASKING_CHOICES: Any = ChoiceEnum(["adversary", "bernoulli", "scheduled", "magnitude"])


@dataclass
class AsaCriterionConfig(CleanConsistencyConfig, WrappingCriterionConfig):
    """Options of ASA."""

    asa_tau: float = field(
        default=0.3,
        metadata={"help": "price tau of a masked unit: the lower, the stronger the adversary"},
    )
    asa_masking: MASKING_CHOICES = field(
        default="adversary",
        metadata={
            "help": "who masks: the adversary, or a naive strategy of the paper's, without price, on "
            "any RoBERTa-like --arch: bernoulli (random units), scheduled (the same, as many as the "
            "adversary learned to mask), magnitude (the largest attention scores)"
        },
    )
    asa_masking_rate: Optional[float] = field(
        default=None,
        metadata={
            "help": "with bernoulli: probability that a unit is masked (the paper's: 0.05 or 0.1); with "
            f"magnitude: proportion of a sentence's units ({DEFAULT_RATE} without this option)"
        },
    )
    asa_masking_schedule: Optional[str] = field(
        default=None,
        metadata={
            "help": "with scheduled: UPDATE:PROPORTION,... between which the probability is a straight "
            f"line; without this option {MEASURED_SCHEDULE}"
        },
    )


@register_method(
    "asa",
    title="ASA, adversarial self-attention",
    paper="Wu et al., AAAI 2023",
    address="https://github.com/gingasan/adversarialSA",
    summary="an adversary masks attention units, the prediction must not change",
    passes="2",
    adversaries=True,
)
@register_criterion("asa_criterion", dataclass=AsaCriterionConfig)
class AsaCriterion(WrappingCriterion):
    r"""A clean pass, a pass whose attention an adversary masks, and a game between the two.

    .. math::
        \min_\theta\; L_e + \alpha L_{asa}, \quad \max_\eta\; \alpha L_{asa} - \tau L_c, \qquad
        L_{asa} = D(f(x), f(x, \mu_\eta)), \quad L_c = \sum_i \mathrm{mean}(\mu_i)

    over the self-attention layers i (Eq. 9; gradient reversal makes both one backward pass). L_c of a
    sentence is the sum over layers of its masked PROPORTION, so tau means the same at every length.
    (The paper's Eq. 8 adds the penalty, with the norm of a keep-mask in mind: a lower tau is a stronger
    attack.) For multiple choice a question's L_c is the mean over its candidates. For token labelling
    L_e and L_asa are means over the labelled tokens and L_c is a mean over the sentences, so tau weighs
    a sentence's masks against one token's loss. For masked LM this is the paper's continual
    pre-training (Eq. 10): L_asa on the masked tokens, L_c as before, plus the same divergence of the
    final hidden state (softmax over its units) at the first position, for each sentence.

    Meters: ``loss`` (and all of the base's) is the clean loss; ``asa_loss``, ``sentence_asa_loss``
    (masked LM), ``penalty_loss`` (tau L_c) and ``objective`` are in the same units;
    ``masked_proportion`` is the mean over layers, ``masked_layer1`` ... each layer's (Figure 5).

    The players' gradients are clipped apart (``adversary_gnorm``, see ``clipping.py``), and what a
    masked unit hears has a bound (``masked_attention.py``).

    ``--asa-masking`` replaces the adversary by a naive strategy (section 5.1, Table 3), in all layers
    and with the first two terms of Eq. 9: L_e + alpha L_asa, under masks without price or gradient, but
    with the adversary's rules (one mask of a sentence for all heads, nothing at padding, no whole row).
    ``bernoulli`` masks each unit with one probability; ``scheduled`` with that of a schedule, by the
    number of updates; ``magnitude`` the largest attention scores. The paper does not say how many, nor
    over what they are the largest: here it is a proportion of a sentence's units in a layer, by their
    mean weights over the heads, after the softmax (``naive_masks.py``).

    The authors' released code adds the Gumbel noise and subtracts it again, divides by a temperature of
    1e-12, adds a finite -1e4 to the scores of masked units and penalises by tau^2 times the number of
    kept units; a masked unit hears the penalty alone. For regression its L_asa is the divergence of two
    softmaxes over the BATCH, for token labelling a sum over all positions, padding too, divided by the
    number of sentences. Its RoBERTa has no attention dropout.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without adversaries (naive masks: without Transformer layers) or one that
            drops layers.
    """

    ADVICE_ON_NAN = ", or a larger --asa-tau"
    LOSS_METERS = asa_game.LOSS_METERS
    MEAN_METERS = asa_game.MEAN_METERS

    def __init__(self, cfg: AsaCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "asa_tau", "consistency_weight", at_least=0)
        masking = str(cfg.asa_masking)
        self.naive = naive_masks(masking, cfg.asa_masking_rate, cfg.asa_masking_schedule)
        self.game = AsaGame(
            weight=cfg.consistency_weight,
            tau=cfg.asa_tau if self.naive is None else None,
            divergence=get_divergence(str(cfg.consistency_loss), regression=self.regression),
            pre_training=self.masked_lm,
        )

    def is_active(self) -> bool:
        """Plain fine-tuning when the weight is 0."""
        return self.game.weight != 0

    def check_model(self, model: nn.Module) -> None:
        """ASA needs adversaries, and two passes of the same layers."""
        super().check_model(model)
        if self.is_active() and self.naive is None:
            check_adversaries(model)
        elif self.is_active():
            encoder_layers(model)
            check_same_layers(model)

    def masks(self, model: nn.Module) -> ContextManager[List[List[Tensor]]]:
        """A context within which the model is masked as in this update."""
        return biased(model) if self.naive is None else self.naive.masked(model, self.update_number)

    def perturbed_forward(self, step: Step) -> Any:
        """Eq. 9 (Eq. 10 for masked LM) on one batch: two forwards, one backward."""
        clean, term, value, log = self.game.play(step, clean_weight=1.0, masks=self.masks, write=True)
        return step.finish(clean, term, value, **log)
