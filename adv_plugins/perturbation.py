"""Perturbing what a module puts out, without touching the module: hooks, norms, directions.

A perturbation is a context manager around one pass. Leaving it, also by an exception, takes the
hook away; no weight is changed in place, so nothing has to be restored.

A criterion may call the model several times in one pass (multiple choice: once per candidate).
So a pass is a list of calls, and a perturbation is a list of tensors, one for each call.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adv_plugins.batch import at_least_one
from adv_plugins.divergence import full_precision
from fairseq_compat.errors import UserError


def unwrap(model: nn.Module) -> nn.Module:
    """The fairseq model inside the distributed wrappers."""
    while isinstance(getattr(model, "module", None), nn.Module):
        model = model.module
    return model


def word_embedding(model: nn.Module) -> nn.Embedding:
    """The word-embedding module of ``model``, by fairseq's name for it: ``embed_tokens``.

    Raises:
        UserError: the model has none.
    """
    for name, module in unwrap(model).named_modules():
        if name.rpartition(".")[2] == "embed_tokens" and isinstance(module, nn.Embedding):
            return module
    raise UserError(
        f"the model {type(unwrap(model)).__name__} has no word embeddings (an nn.Embedding named "
        "embed_tokens) to perturb: choose another --arch, or fairseq's own --criterion"
    )


@dataclass
class Calls:
    """What an embedding module saw in one pass, one entry a call.

    tokens: (B, T) token ids; outputs: (B, T, d) word embeddings, part of the pass's graph.
    """

    tokens: List[Tensor] = field(default_factory=list)
    outputs: List[Tensor] = field(default_factory=list)


@contextlib.contextmanager
def recorded(embedding: nn.Embedding) -> Iterator[Calls]:
    """Record every call of ``embedding``; its outputs can be differentiated against."""
    calls = Calls()

    def hook(_module: nn.Module, arguments: Tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:  # frozen embeddings
            output = output.detach().requires_grad_()
        calls.tokens.append(arguments[0])
        calls.outputs.append(output)
        return output

    handle = embedding.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def embedding_norm(model: nn.Module) -> Optional[nn.LayerNorm]:
    """The layer norm that follows the sum of ``model``'s embeddings, by fairseq's name for it; None if
    it has none."""
    for name, module in unwrap(model).named_modules():
        if name.rpartition(".")[2] == "layernorm_embedding" and isinstance(module, nn.LayerNorm):
            return module
    return None


@contextlib.contextmanager
def perturbed(
    module: nn.Module, deltas: Sequence[Tensor], norm: Optional[nn.LayerNorm] = None
) -> Iterator[None]:
    """Add ``deltas[i]`` to the output of the i-th call of ``module``.

    Args:
        deltas: in float32 where ``module`` puts out float16 or bfloat16.
        norm: what normalises the sum. In models of float16 or bfloat16 the sum is then a float32 tensor
            up to there, and the normalised one is rounded, once: in bfloat16 a third of a perturbation
            of norm 0.1 would be lost in rounding the sum. Without it, the sum is rounded.

    Raises:
        RuntimeError: the module was called more or fewer times than there are deltas.
    """
    remaining = list(deltas)

    def hook(_module: nn.Module, _arguments: Tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not remaining:
            raise RuntimeError(f"more than {len(deltas)} calls of the perturbed module in one pass")
        delta = remaining.pop(0)
        if norm is None:
            return output + delta.to(output.dtype)
        return output + delta

    handle = module.register_forward_hook(hook)
    try:
        with normalised_in_float32(norm):
            yield
    finally:
        handle.remove()
    if remaining:
        raise RuntimeError(f"{len(remaining)} of {len(deltas)} perturbations were not used")


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within the context ``module`` computes this instead; its hooks stay."""
    before = vars(module).get("forward")  # activation checkpointing puts one on the instance
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward  # which brings the class's own back
        else:
            module.forward = before


@contextlib.contextmanager
def normalised_in_float32(norm: Optional[nn.LayerNorm]) -> Iterator[None]:
    """Within the context a layer norm of float16 or bfloat16 computes in float32 and rounds once."""
    if norm is None or norm.weight.dtype not in (torch.float16, torch.bfloat16):
        yield
        return

    def forward(hidden: Tensor) -> Tensor:
        normalised = F.layer_norm(
            full_precision(hidden),
            norm.normalized_shape,
            full_precision(norm.weight),
            full_precision(norm.bias),
            norm.eps,
        )
        return normalised.to(norm.weight.dtype)

    with replaced_forward(norm, forward):
        yield


@contextlib.contextmanager
def captured_outputs(model: nn.Module) -> Iterator[List[Tensor]]:
    """The first output (the logits, at least float32) of every call of ``model``."""
    outputs: List[Tensor] = []

    def hook(_module: nn.Module, _arguments: Tuple[Tensor, ...], output: Tuple[Tensor, ...]) -> None:
        outputs.append(full_precision(output[0]))

    handle = model.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


@contextlib.contextmanager
def captured_features(model: nn.Module) -> Iterator[List[Tensor]]:
    """The final hidden state (B, d) of the first position, for every call of a RoBERTa."""
    features: List[Tensor] = []

    def hook(_module: nn.Module, _arguments: Tuple[Tensor, ...], output: Any) -> None:
        features.append(output["encoder_out"][0][0])

    handle = model.encoder.sentence_encoder.register_forward_hook(hook)
    try:
        yield features
    finally:
        handle.remove()


class Direction(NamedTuple):
    """Unit-norm ascent directions and the norms that they were divided by.

    deltas: one (B, T, d) tensor a call, zero at padding; zero too where the gradient was zero or
        not finite.
    norm: scalar or (B,), the gradient's L2 norm.
    """

    deltas: List[Tensor]
    norm: Tensor

    def total_norm(self, sample_size: Any, sentences: int) -> Tensor:
        """The norms as a sum over sentences: each one's own, or for each that of the mean loss."""
        if self.norm.dim():
            return self.norm.sum()
        return self.norm * sentences / at_least_one(sample_size)


def real_tokens(tokens: Tensor, padding_index: Optional[int]) -> Tensor:
    """(B, T, 1) boolean: True where the token is not padding."""
    if padding_index is None:
        return torch.ones_like(tokens, dtype=torch.bool).unsqueeze(-1)
    return tokens.ne(padding_index).unsqueeze(-1)


def sentence_norms(tensors: Sequence[Tensor]) -> Tensor:
    """(B,) L2 norms over all calls together: the candidates of one question share one norm."""
    squares = [full_precision(tensor).pow(2).flatten(start_dim=1).sum(dim=1) for tensor in tensors]
    return torch.stack(squares).sum(dim=0).sqrt()


def sentence_maxima(tensors: Sequence[Tensor]) -> Tensor:
    """(B,) largest absolute values (L-infinity norms) over all calls together."""
    maxima = [full_precision(tensor).abs().flatten(start_dim=1).amax(dim=1) for tensor in tensors]
    return torch.stack(maxima).amax(dim=0)


def divide_by_norm(tensor: Tensor, norm: Tensor) -> Tensor:
    """tensor / norm, and zero where the norm is zero or not finite (no norm, no perturbation)."""
    usable = torch.isfinite(norm) & (norm > 0)
    return torch.where(usable, tensor / torch.where(usable, norm, 1.0), 0.0)


def sentence_direction(
    gradients: Sequence[Tensor], tokens: Sequence[Tensor], padding_index: Optional[int]
) -> Direction:
    """g / ||g||_2 for each sentence (each question, over all its candidates)."""
    gradients = [
        torch.where(real_tokens(ids, padding_index), full_precision(gradient), 0.0)
        for gradient, ids in zip(gradients, tokens)
    ]
    norm = sentence_norms(gradients)
    return Direction([divide_by_norm(gradient, norm[:, None, None]) for gradient in gradients], norm)


def embedding_matrix_direction(
    gradients: Sequence[Tensor], tokens: Sequence[Tensor], padding_index: Optional[int]
) -> Direction:
    """(g / ||g||_2)[token] with g = d loss / d E, E the (V, d) embedding matrix (R-AT, FGM).

    Adding the direction to E equals adding its row of each token to that token's embedding, so
    neither E nor a V x d gradient is needed: the gradients of equal tokens are summed into at most
    B * T rows. Token ids are sorted to find equal ones, which, unlike ``unique``, does not wait for
    the GPU.
    """
    all_tokens = torch.cat([ids.reshape(-1) for ids in tokens])
    flat = torch.cat([full_precision(g).reshape(-1, g.size(-1)) for g in gradients])
    flat = torch.where(real_tokens(all_tokens, padding_index), flat, 0.0)
    row = torch.searchsorted(all_tokens.sort().values, all_tokens)
    summed = torch.zeros_like(flat).index_add_(0, row, flat)
    norm = summed.norm()
    direction = divide_by_norm(summed[row], norm)
    pieces = direction.split([ids.numel() for ids in tokens])
    return Direction([piece.view_as(g) for piece, g in zip(pieces, gradients)], norm)


DIRECTIONS = {"embedding-matrix": embedding_matrix_direction, "sentence": sentence_direction}
