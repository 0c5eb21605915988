"""The ball that a perturbation of the word embeddings stays in: start, ascend, project.

For each sentence (for multiple choice: each question, over all its candidates). A perturbation is a list
of (B, T, d) tensors, one for each call of the model; ``real`` is as long, (B, T, 1) booleans that are
False at padding, where a perturbation is 0. Everything is at least float32.
"""

from typing import List, NamedTuple, Sequence, Union

import torch
from torch import Tensor

from adv_plugins.batch import at_least_one
from adv_plugins.perturbation import divide_by_norm, sentence_maxima, sentence_norms

NORMS = {"l2": sentence_norms, "linf": sentence_maxima}


class Ball(NamedTuple):
    """norm: ``l2`` (Frobenius, over tokens and units) or ``linf``; radius: epsilon, in that norm, one
    number or (B, 1, 1) of the sentences."""

    norm: str
    radius: Union[float, Tensor]

    def start(self, real: Sequence[Tensor], width: int, dtype: torch.dtype, size: float) -> List[Tensor]:
        r"""A random perturbation to begin with.

        .. math:: \delta = \epsilon_0\, U(-1, 1)\; [\,/ \sqrt{n d}\ \text{for}\ \ell_2\,]

        Args:
            width: d; size: epsilon_0, with 0 the zero perturbation; n: a sentence's real tokens.
        """
        dtype = torch.promote_types(dtype, torch.float32)
        deltas = [torch.zeros(*each.shape[:2], width, dtype=dtype, device=each.device) for each in real]
        if size == 0:
            return deltas
        scale = size
        if self.norm == "l2":
            lengths = torch.stack([each.sum(dim=(1, 2)) for each in real]).sum(dim=0)
            scale = scale / (at_least_one(lengths) * width).to(dtype).sqrt()[:, None, None]
        return [delta.uniform_(-1, 1) * scale * each for delta, each in zip(deltas, real)]

    def ascend(
        self,
        deltas: Sequence[Tensor],
        gradients: Sequence[Tensor],
        real: Sequence[Tensor],
        step_size: float,
    ) -> List[Tensor]:
        r"""One step of projected ascent.

        .. math:: \delta \leftarrow \Pi(\delta + \alpha\, g / \|g\|)
        """
        gradients = [torch.where(each, gradient, 0.0) for each, gradient in zip(real, gradients)]
        norm = NORMS[self.norm](gradients)[:, None, None]
        return self.project(
            [
                delta.detach() + step_size * divide_by_norm(gradient, norm)
                for delta, gradient in zip(deltas, gradients)
            ]
        )

    def project(self, deltas: Sequence[Tensor]) -> List[Tensor]:
        """The nearest perturbation in the ball; one that is inside keeps its bits."""
        if self.norm == "linf":
            return [delta.clamp(-self.radius, self.radius) for delta in deltas]
        norm = sentence_norms(deltas)[:, None, None]
        shrink = torch.where(norm > self.radius, self.radius / norm.clamp_min(1e-30), 1.0)
        return [delta * shrink for delta in deltas]


class Stretch(NamedTuple):
    """What a :class:`Ball` is not: a sphere for each token, on which an ascent always ends.

    radius: the L-infinity norm of each token's perturbation, over its units.
    """

    radius: float

    def ascend(
        self,
        deltas: Sequence[Tensor],
        gradients: Sequence[Tensor],
        real: Sequence[Tensor],
        step_size: float,
    ) -> List[Tensor]:
        r"""One step along the gradient as it is, then each token's norm is made the radius.

        .. math:: \delta \leftarrow \epsilon\, (\delta + \eta g) / \|\delta + \eta g\|_\infty
        """
        moved = [
            torch.where(each, delta.detach() + step_size * gradient, 0.0)
            for delta, gradient, each in zip(deltas, gradients, real)
        ]
        return [
            self.radius * divide_by_norm(each, each.abs().amax(dim=-1, keepdim=True)) for each in moved
        ]
