"""AWP, adversarial weight perturbation (Wu et al., NeurIPS 2020), of a text encoder."""

from dataclasses import dataclass, field
from typing import Any, Dict, Sequence

import torch
from fairseq.criterions import register_criterion
from torch import Tensor, nn

from adv_plugins.criterions.options import check_range
from adv_plugins.criterions.with_asa import AsaAdditionConfig, WithAsa
from adv_plugins.dropout import drops_layers
from adv_plugins.methods import register_method
from adv_plugins.perturbation import divide_by_norm
from adv_plugins.shifted_weights import layers_of, matrices, shifted
from adv_plugins.step import Step
from fairseq_compat.errors import UserError


@dataclass
class AwpCriterionConfig(AsaAdditionConfig):
    """Options of AWP."""

    awp_gamma: float = field(
        default=0.01,
        metadata={"help": "norm gamma of a weight's perturbation, relative to the weight's own norm"},
    )
    awp_clean_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the clean loss beside the perturbed one (paper: 0; often 1)"},
    )
    awp_start_update: int = field(
        default=0, metadata={"help": "plain fine-tuning before this many updates"}
    )


@register_method(
    "awp",
    title="AWP, adversarial weight perturbation",
    paper="Wu et al., NeurIPS 2020",
    address="https://github.com/csdongxian/AWP",
    summary="a gradient step up in the encoder's weights, from where the model is trained",
    passes="2",
)
@register_criterion("awp_criterion", dataclass=AwpCriterionConfig)
class AwpCriterion(WithAsa):
    r"""The loss at the worst weights nearby.

    .. math::
        L = c\, CE(f_\theta(x), y) + CE(f_{\theta + v}(x), y), \qquad
        v_l = \gamma\, \|\theta_l\|_F\, g_l / \|g_l\|_F, \quad g = \nabla_\theta CE(f_\theta(x), y)

    for every weight matrix l of the Transformer layers (Eq. 7 to 10 with one step; v is a constant); of
    a model without them, of its recurrent layers, convolutions and attention (a convolution's kernels
    are one weight). As text encoders are trained with it, the inputs are not perturbed, and neither are
    embeddings, of which a batch knows a few rows, nor the head; biases and norms are none of the paper's
    either. Each pass draws its own dropout masks. The weights themselves are never changed: nothing is
    to be restored.

    Meters: ``loss`` (and all of the base's) is the clean loss; ``adv_loss`` and ``objective`` are in the
    same units; ``weight_perturbation`` is the L2 norm of v.

    The authors' released code steps a copy of the model by SGD and reads v off its weights; code for
    text encoders that adds the two losses is ``--awp-clean-weight 1``.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without such layers or that drops some.
    """

    ADVICE_ON_NAN = ", or a smaller --awp-gamma, or a later --awp-start-update"
    LOSS_METERS = ("objective", "adv_loss")
    MEAN_METERS = ("weight_perturbation",)

    def __init__(self, cfg: AwpCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "awp_gamma", "awp_clean_weight", "awp_start_update", at_least=0)
        self.gamma, self.clean_weight = cfg.awp_gamma, cfg.awp_clean_weight
        self.start_update = cfg.awp_start_update

    def is_active(self) -> bool:
        """Plain fine-tuning without a perturbation, and before ``--awp-start-update``."""
        return self.gamma != 0 and self.update_number >= self.start_update

    def check_model(self, model: nn.Module) -> None:
        """It needs layers, and the same ones in both passes."""
        super().check_model(model)
        layers_of(model)
        if drops_layers(model):
            raise UserError(
                "awp_criterion makes two passes of the same layers: set --encoder-layerdrop 0"
            )

    def perturbed_forward(self, step: Step) -> Any:
        """One step up in the weights, and a pass there."""
        layers = layers_of(step.module)
        clean = step.run(last=False, write=True)
        step.backward(clean.loss)
        shifts = self._shifts(step, layers)
        step.kept.scale(self.clean_weight)
        with shifted(layers, shifts):
            adversarial = step.run(last=True)
        norm = torch.stack([each.norm() for each in shifts.values()]).norm()
        return step.finish(
            clean,
            adversarial.loss,
            self.clean_weight * clean.loss.detach() + adversarial.loss.detach(),
            adv_loss=adversarial.loss,
            weight_perturbation=norm * clean.logging["nsentences"],
        )

    def _shifts(self, step: Step, layers: Sequence[nn.Module]) -> Dict[nn.Parameter, Tensor]:
        """v of each weight matrix that the loss depends on."""
        gradients = step.kept.of(
            [module._parameters[name] for layer in layers for module, name in matrices(layer)]
        )
        return {
            weight: self.gamma
            * weight.detach().norm(dtype=gradient.dtype)
            * divide_by_norm(gradient, gradient.norm())
            for weight, gradient in gradients.items()
        }
