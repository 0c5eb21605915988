"""YOPO, you only propagate once (Zhang et al., NeurIPS 2019), as FreeLB's paper applies it."""

from dataclasses import dataclass, field
from typing import Any, List

from fairseq.criterions import register_criterion
from torch import Tensor, nn

from adv_plugins.criterions.ascent import Ascent, AscentConfig
from adv_plugins.criterions.options import check_range
from adv_plugins.dropout import drops_layers
from adv_plugins.fork import encoder_layers
from adv_plugins.methods import register_method
from adv_plugins.perturbation import sentence_norms
from adv_plugins.step import FirstLayer, Step
from fairseq_compat.errors import UserError


@dataclass
class YopoCriterionConfig(AscentConfig):
    """Options of YOPO-m-n: m is ``--adv-steps``."""

    adv_inner_steps: int = field(
        default=2,
        metadata={"help": "number n of ascents of size alpha/n after a pass, below the first layer"},
    )


@register_method(
    "yopo",
    title="YOPO, you only propagate once",
    paper="Zhang et al., NeurIPS 2019",
    address="https://github.com/a1600012888/YOPO-You-Only-Propagate-Once",
    summary="FreeLB with n smaller ascents a pass, which know the first layer alone",
    passes="m + 2/3 (m - 1)(n - 1)/L",
)
@register_criterion("yopo_criterion", dataclass=YopoCriterionConfig)
class YopoCriterion(Ascent):
    r"""FreeLB's passes, between which the perturbation climbs n times through the first layer.

    .. math::
        L = \tfrac1m \sum_{t=1}^m CE(f(x + \delta_{t-1}), y), \qquad
        p_t = \nabla_{h} CE \text{ at } h = f_0(x + \delta_{t-1}), \qquad
        \delta \leftarrow \Pi_{\|\cdot\|_F \le \epsilon}(\delta + \tfrac{\alpha}{n}\, g / \|g\|_F)
        \text{ n times}, \quad g = \nabla_\delta \langle p_t, f_0(x + \delta) \rangle

    f_0 is what lies up to the output of the first Transformer layer (FreeLB, section 4.3: with the
    embeddings alone all n steps would be the same one), p_t is held fixed. The first of the n gradients
    is the pass's own, so YOPO-m-1 is FreeLB with K = m. For FreeLB's Table 9, which keeps the step size,
    give n times alpha. All passes have one dropout mask, so the small ones have the big ones'.

    Meters: as FreeLB's.

    FreeLB's released code counts ascents, so its YOPO-3-2 is ``--adv-steps 4 --adv-inner-steps 2`` here;
    its inner steps of size alpha are not divided by n, and the first of the n is computed again. YOPO's
    own release, for images, perturbs up to the first convolution.

    Raises:
        UserError: options out of range, a task whose criterion cannot be wrapped, or (at the first
            batch) a model without word embeddings, without Transformer layers, or that drops layers.
    """

    def __init__(self, cfg: YopoCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_range(cfg, "adv_inner_steps", at_least=1)
        self.inner_steps = cfg.adv_inner_steps

    def check_model(self, model: nn.Module) -> None:
        """It needs a first layer, and the same one in all passes."""
        super().check_model(model)
        encoder_layers(model)
        if drops_layers(model):
            raise UserError("yopo_criterion goes back to the first layer: set --encoder-layerdrop 0")

    def perturbed_forward(self, step: Step) -> Any:
        """m passes and (m - 1) n ascents on one batch."""
        results, gradient_norms = [], []
        deltas = self.start(step)
        for number in range(1, self.steps + 1):
            last = number == self.steps
            deltas = [delta.detach().requires_grad_(not last) for delta in deltas]
            with step.first_layer() as first:
                result = step.run(
                    deltas, last=last, same_dropout=self.reuse_dropout_mask, write=number == 1
                )
            results.append(result._replace(loss=result.loss.detach()))
            term = result.loss / self.steps
            if not last:
                found = step.backward(term, [*deltas, *first.states])
                gradient_norms.append(sentence_norms(found[: len(deltas)]).sum() * self.steps)
                deltas = self._climb(step, deltas, found, first)
        return self.finish(step, results, term, deltas, gradient_norms)

    def _climb(
        self, step: Step, deltas: List[Tensor], found: List[Tensor], first: FirstLayer
    ) -> List[Tensor]:
        """n ascents; ``found``: the pass's gradients for the deltas and at the first layer's output."""
        gradients, fixed = found[: len(deltas)], found[len(deltas) :]
        for inner in range(self.inner_steps):
            if inner:
                gradients = step.ascent_below(deltas, fixed, first, same_dropout=self.reuse_dropout_mask)
            size = self.step_size / self.inner_steps
            deltas = self.ball.ascend(deltas, gradients, step.real, size)
        return deltas
