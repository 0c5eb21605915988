"""FreeLB, free large-batch adversarial training (Zhu et al., ICLR 2020)."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from adv_plugins.batch import at_least_one, source_tokens
from adv_plugins.criterions.base import AsaAdditionConfig, WrappingCriterion, check_range
from adv_plugins.dropout import SameMasks
from adv_plugins.perturbation import (
    divide_by_norm,
    perturbed,
    real_tokens,
    sentence_maxima,
    sentence_norms,
    unwrap,
    word_embedding,
)


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
    adv_norm: ChoiceEnum(["l2", "linf"]) = field(  # type: ignore[valid-type]
        default="l2", metadata={"help": "norm of the ball and of the gradient"}
    )
    adv_start_update: int = field(
        default=0, metadata={"help": "plain fine-tuning before this many updates"}
    )
    no_reuse_dropout_mask: bool = field(
        default=False,
        metadata={"help": "draw new dropout masks in every pass (Table 4's ablation)"},
    )


@register_criterion("freelb_criterion", dataclass=FreeLBCriterionConfig)
class FreeLBCriterion(WrappingCriterion):
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
        ValueError: options out of range, a task whose criterion cannot be wrapped, or (at the first
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
        self.eps = cfg.adv_eps
        self.init_eps = cfg.adv_eps
        if cfg.adv_init_eps is not None:
            check_range(cfg, "adv_init_eps", at_least=0)
            self.init_eps = cfg.adv_init_eps
        self.norm = str(cfg.adv_norm)
        self.reuse_dropout_mask = not cfg.no_reuse_dropout_mask
        self.start_update = cfg.adv_start_update
        if self.start_update > 0:
            self.follow_updates(task)

    def is_active(self) -> bool:
        """Plain fine-tuning before ``--adv-start-update``."""
        return self.start_update <= 0 or self.update_number >= self.start_update

    def check_model(self, model: nn.Module) -> None:
        """It needs word embeddings."""
        super().check_model(model)
        word_embedding(model)

    def perturbed_forward(self, model: nn.Module, sample: Dict[str, Any]) -> Any:
        """Algorithm 1 on one batch."""
        module = unwrap(model)
        embedding = word_embedding(module)
        tokens = source_tokens(sample)
        kept = self.kept_gradients(model)
        masks = SameMasks(embedding.weight.device)
        deltas = self.initial(tokens, embedding)
        losses, gradient_norms = [], []
        for step in range(self.steps):
            last = step == self.steps - 1
            deltas = [delta.detach().requires_grad_(not last) for delta in deltas]
            with masks.replayed() if self.reuse_dropout_mask else nullcontext():
                with perturbed(embedding, deltas):
                    # Only the last pass, which the trainer differentiates, needs the wrapper that
                    # reduces over workers.
                    result = self.run_base(
                        model if last else module, sample, write=step == 0, logits=False
                    )
            if step == 0:
                first = result
            losses.append(result.loss.detach())
            if last:
                break
            gradients = kept.backward(result.loss / self.steps, deltas)
            gradient_norms.append(sentence_norms(gradients).sum() * self.steps)
            deltas = self.ascend(deltas, gradients, tokens, embedding.padding_idx)
        loss = kept.attach(result.loss / self.steps)
        # In value the mean over the passes; in gradient the last one's share and the kept ones.
        loss = loss + (torch.stack(losses).mean() - loss).detach()
        first.logging.update(
            objective=loss.detach(),
            adv_loss=losses[-1],
            perturbation_norm=sentence_norms(deltas).sum().detach(),
        )
        if gradient_norms:
            first.logging["embedding_gradient_norm"] = gradient_norms[0]
        return loss, first.sample_size, first.logging

    def initial(self, tokens: List[Tensor], embedding: nn.Embedding) -> List[Tensor]:
        """delta_0: (B, T, d) for each call; zero at padding."""
        real = [real_tokens(ids, embedding.padding_idx) for ids in tokens]
        dtype = torch.promote_types(embedding.weight.dtype, torch.float32)
        deltas = [
            torch.zeros(*ids.shape, embedding.embedding_dim, dtype=dtype, device=ids.device)
            for ids in tokens
        ]
        if self.init_eps == 0:
            return deltas
        scale = self.init_eps
        if self.norm == "l2":
            lengths = torch.stack([each.sum(dim=(1, 2)) for each in real]).sum(dim=0)
            scale = scale / (at_least_one(lengths) * embedding.embedding_dim).to(dtype).sqrt()
            scale = scale[:, None, None]
        return [delta.uniform_(-1, 1) * scale * each for delta, each in zip(deltas, real)]

    def ascend(
        self,
        deltas: List[Tensor],
        gradients: List[Tensor],
        tokens: List[Tensor],
        padding_index: Optional[int],
    ) -> List[Tensor]:
        """One step of projected gradient ascent for each sentence (question)."""
        gradients = [
            torch.where(real_tokens(ids, padding_index), gradient, 0.0)
            for gradient, ids in zip(gradients, tokens)
        ]
        size = sentence_norms if self.norm == "l2" else sentence_maxima
        norm = size(gradients)[:, None, None]
        deltas = [
            delta.detach() + self.step_size * divide_by_norm(gradient, norm)
            for delta, gradient in zip(deltas, gradients)
        ]
        if self.norm == "linf":
            return [delta.clamp(-self.eps, self.eps) for delta in deltas]
        norm = sentence_norms(deltas)[:, None, None]
        # A perturbation inside the ball keeps its bits.
        shrink = torch.where(norm > self.eps, self.eps / norm.clamp_min(1e-30), 1.0)
        return [delta * shrink for delta in deltas]
