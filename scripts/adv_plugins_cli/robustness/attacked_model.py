"""A checkpoint's model as an attack in embedding space sees it: losses of sentences, and their gradient
with regard to what is added to the word embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from adv_plugins_cli.robustness.rows import NO_LABEL, Rows

if TYPE_CHECKING:
    from adv_plugins_cli.checkpoints.predictor import Predictor


class Judged(NamedTuple):
    """losses: (B,) in nats; right: (B,) whether each sentence's prediction is its target."""

    losses: Any
    right: Any


class AttackedModel:
    """One batch of sentences through one model, in evaluation mode.

    embeddings: (B, T, d) word embeddings X for each call of the model; real: as long, (B, T, 1).
    """

    def __init__(self, predictor: Predictor, rows: Rows) -> None:
        """rows: the batch."""
        import torch

        self.predictor, self.model, self.kind = predictor, predictor.model, predictor.trained.kind
        calls = len(rows.sequences[0])
        self.tokens = [predictor.padded([row[call] for row in rows.sequences]) for call in range(calls)]
        kind = torch.float32 if self.kind == "regression" else torch.int64
        self.targets = torch.nn.utils.rnn.pad_sequence(
            [torch.as_tensor(target, dtype=kind) for target in rows.targets],
            batch_first=True,
            padding_value=NO_LABEL,
        ).to(predictor.device)

    @cached_property
    def embedding(self) -> Any:
        """The module of the word embeddings."""
        from adv_plugins.perturbation import word_embedding

        return word_embedding(self.model)

    @cached_property
    def real(self) -> list[Any]:
        """Where tokens are no padding."""
        from adv_plugins.perturbation import real_tokens

        return [real_tokens(ids, self.embedding.padding_idx) for ids in self.tokens]

    @cached_property
    def embeddings(self) -> list[Any]:
        """X, 0 at padding."""
        import torch

        with torch.no_grad():
            return [self.embedding(ids) * real for ids, real in zip(self.tokens, self.real)]

    def judge(self, deltas: Sequence[Any] | None = None) -> Judged:
        """The losses at X + delta, without gradient."""
        import torch

        with torch.no_grad(), self._perturbed(deltas):
            return self._judge()

    def gradient(self, deltas: Sequence[Any]) -> tuple[Judged, list[Any]]:
        """The losses at X + delta, and of each sentence's loss d L / d delta for each call."""
        import torch

        from adv_plugins.gradients import frozen

        deltas = [delta.detach().requires_grad_() for delta in deltas]
        with torch.enable_grad(), frozen(self.model), self._perturbed(deltas):
            judged = self._judge()
            gradients = torch.autograd.grad(judged.losses.sum(), deltas)
        return Judged(judged.losses.detach(), judged.right), list(gradients)

    def judge_noisy(self, layer: int, noise: Any) -> Judged:
        """The losses with ``noise(h, call)`` added to the (T, B, d) hidden states of a layer (0: the
        embeddings' output)."""
        import torch

        from adv_plugins.fork import forked

        with (
            torch.no_grad(),
            plain_layers(self.model),
            forked(self.model, layer=layer, noise=noise) as noisy,
        ):
            for ids in self.tokens:
                self.predictor.forward(ids)
        return self._of(noisy)

    def _judge(self) -> Judged:
        return self._of([self.predictor.forward(ids) for ids in self.tokens])

    def _of(self, outputs: Sequence[Any]) -> Judged:
        """Losses and hits of the outputs of all calls."""
        import torch
        import torch.nn.functional as F

        outputs = [output.float() for output in outputs]
        if self.kind == "regression":
            losses = (outputs[0][:, 0] - self.targets[:, 0]) ** 2
            return Judged(losses, torch.ones_like(losses, dtype=torch.bool))
        if self.kind == "tokens":
            targets = self.targets[:, : outputs[0].size(1)]
            each = F.cross_entropy(
                outputs[0].transpose(1, 2), targets, ignore_index=NO_LABEL, reduction="none"
            )
            labelled = targets.ne(NO_LABEL)
            right = (outputs[0].argmax(dim=-1).eq(targets) | ~labelled).all(dim=1)
            return Judged(each.sum(dim=1) / labelled.sum(dim=1).clamp_min(1), right)
        logits = torch.cat(list(outputs), dim=1)
        targets = self.targets[:, 0]
        return Judged(F.cross_entropy(logits, targets, reduction="none"), logits.argmax(1).eq(targets))

    @contextlib.contextmanager
    def _perturbed(self, deltas: Sequence[Any] | None) -> Iterator[None]:
        from adv_plugins.perturbation import embedding_norm, perturbed

        with plain_layers(self.model):
            if deltas is None:
                yield
                return
            with perturbed(self.embedding, deltas, embedding_norm(self.model)):
                yield


@contextlib.contextmanager
def plain_layers(model: Any) -> Iterator[None]:
    """Within the context the layers compute as in training but for dropout: in evaluation mode fairseq
    uses torch's fused encoder layer, which has no gradient and leaves hooks out."""
    layers = [module for module in model.modules() if hasattr(module, "ever_training")]
    before = [layer.ever_training for layer in layers]
    for layer in layers:
        layer.ever_training = True
    try:
        yield
    finally:
        for layer, value in zip(layers, before):
            layer.ever_training = value
