"""One training step of a method, and the only place that knows how its passes are run.

A method says WHICH passes it makes and how their predictions are compared; a step knows the distributed
wrapper, of which one pass an update is reduced, the word embeddings, the gradients that inner passes
leave behind (``gradients.py``), the dropout masks (``dropout.py``), and whether passes that are compared
are one larger batch, one after the other, or one in memory at a time (``comparisons.py``).
"""

from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from adv_plugins import comparisons
from adv_plugins.base_pass import BasePass
from adv_plugins.batch import source_tokens
from adv_plugins.dropout import SameMasks, dropout_rate, entered_with, states_at_entry
from adv_plugins.fork import body, called, hidden_states, states_up_to
from adv_plugins.gradients import KeptGradients, check_one_reduction, frozen
from adv_plugins.passes import (
    Compare,
    Compared,
    FirstLayer,
    Found,
    Noise,
    OfTwo,
    Pass,
    Ran,
    without_graph,
)
from adv_plugins.perturbation import (
    Calls,
    captured_features,
    embedding_norm,
    perturbed,
    real_tokens,
    recorded,
    unwrap,
    word_embedding,
)
from adv_plugins.sequential import delivered, with_value

__all__ = ["Compared", "FirstLayer", "Pass", "Ran", "Step"]


class Step:
    """A method's passes on one batch.

    Args:
        criterion: runs the base criterion (``WrappingCriterion.run_base``).
        model: the model or its distributed wrapper. The wrapper prepares one reduction: of all passes
            that are differentiated only the last one goes through it.
        sample: fairseq's batch.

    Raises:
        UserError: the wrapper cannot reduce the gradients of several passes.
    """

    def __init__(self, criterion: Any, model: nn.Module, sample: Dict[str, Any]) -> None:
        check_one_reduction(model)
        self.criterion, self.model, self.sample = criterion, model, sample
        self.module = unwrap(model)
        self.tokens = source_tokens(sample)
        self._kept: Optional[KeptGradients] = None

    @cached_property
    def embedding(self) -> nn.Embedding:
        """The word embeddings; UserError if the model has none."""
        return word_embedding(self.module)

    @cached_property
    def real(self) -> List[Tensor]:
        """(B, T, 1) booleans for each call, True where the token is not padding."""
        return [real_tokens(ids, self.embedding.padding_idx) for ids in self.tokens]

    @cached_property
    def kept(self) -> KeptGradients:
        """The parameters' gradients of the passes that were differentiated already."""
        self._kept = KeptGradients(self.module, self.criterion.loss_scale)
        return self._kept

    @cached_property
    def _masks(self) -> SameMasks:
        return SameMasks(self.device)

    @cached_property
    def device(self) -> torch.device:
        """The model's."""
        return next(self.module.parameters()).device

    def perturbed(self, deltas: Optional[Sequence[Tensor]]) -> ContextManager[None]:
        """Within the context the word embeddings are perturbed, unless there is nothing to add."""
        if not deltas:
            return nullcontext()
        return perturbed(self.embedding, deltas, embedding_norm(self.module))

    def clean(self) -> Tuple[BasePass, Calls]:
        """An inner pass of the batch as it is, and its word embeddings, to differentiate against."""
        with recorded(self.embedding) as words:
            return self.criterion.run_base(self.module, self.sample, write=True, logits=False), words

    def run(
        self,
        deltas: Optional[Sequence[Tensor]] = None,
        *,
        last: bool,
        same_dropout: bool = False,
        write: bool = False,
    ) -> BasePass:
        """A pass of the batch, without logits.

        Args:
            deltas: what to add to the word embeddings, (B, T, d) for each call of the model, or None.
            last: whether the trainer differentiates it.
            same_dropout: with the dropout masks of the step's first such pass.
        """
        with self._masks.replayed() if same_dropout else nullcontext():
            with self.perturbed(deltas):
                model = self.model if last else self.module
                return self.criterion.run_base(model, self.sample, write=write, logits=False)

    def predict(self, *, last: bool, write: bool = False) -> BasePass:
        """A pass of the batch, with logits.

        Args:
            last: whether the trainer differentiates it.
        """
        model = self.model if last else self.module
        return self.criterion.run_base(model, self.sample, write=write)

    def run_pass(self, each: Pass, *, last: bool, features: bool = False) -> Ran:
        """One of the passes that are compared, with logits.

        Args:
            last: as for :meth:`predict`; features: whether the outputs hold final hidden states.
        """
        with ExitStack() as stack:
            if each.dropout is not None:
                stack.enter_context(dropout_rate(self.module, each.dropout))
            stack.enter_context(self.perturbed(each.deltas))
            inside = stack.enter_context(each.within()) if each.within else None
            states = stack.enter_context(captured_features(self.module)) if features else ()
            base = self.predict(last=last, write=each.write)
        return Ran(base, (base.logits, *states), inside)

    def ascent(
        self,
        deltas: Sequence[Tensor],
        loss: Optional[Callable[[BasePass], Tensor]] = None,
        *,
        same_dropout: bool = False,
        write: bool = False,
    ) -> Tuple[BasePass, List[Tensor]]:
        """A pass for its perturbation's gradient alone: the parameters get none.

        A third of the work of a forward and backward is theirs; it is not done.

        Args:
            deltas: as for :meth:`run`.
            loss: what to climb, a scalar; without it the base's loss, and then without logits.
            same_dropout: as for :meth:`run`.

        Returns:
            the pass, without its graph, and d loss / d delta for each call, at least float32.
        """
        deltas = [delta.detach().requires_grad_() for delta in deltas]
        kept = self.kept  # it has to know the parameters before they are frozen
        with frozen(self.module), self._masks.replayed() if same_dropout else nullcontext():
            with self.perturbed(deltas):
                base = self.criterion.run_base(
                    self.module, self.sample, write=write, logits=loss is not None
                )
            gradients = kept.backward(base.loss if loss is None else loss(base), deltas)
        return without_graph(base), gradients

    @contextmanager
    def first_layer(self) -> Iterator[FirstLayer]:
        """Within the context: what is to be known of a pass for :meth:`ascent_below`."""
        device = self.device
        with ExitStack() as stack:
            yield FirstLayer(
                stack.enter_context(hidden_states(self.module, layer=1)),
                stack.enter_context(called(self.module)),
                stack.enter_context(states_at_entry(body(self.module), device)),
            )

    def ascent_below(
        self,
        deltas: Sequence[Tensor],
        gradients: Sequence[Tensor],
        first: FirstLayer,
        *,
        same_dropout: bool = False,
    ) -> List[Tensor]:
        """d <gradients, h(x + delta)> / d delta for each call, at least float32, with h the (T, B, d)
        hidden states at the output of the first layer; nothing above it is computed, and no gradient of
        the parameters.

        Args:
            first: of the pass that is made again up to there, with ``same_dropout`` with its masks.
        """
        deltas = [delta.detach().requires_grad_() for delta in deltas]
        kept = self.kept
        replayed = entered_with(body(self.module), first.masks, self.device)
        with frozen(self.module), replayed if same_dropout else nullcontext(), self.perturbed(deltas):
            states = states_up_to(self.module, first.calls, layer=1)
            return kept.backward(delivered(states, gradients), deltas)

    def backward(self, loss: Tensor, inputs: Sequence[Tensor] = ()) -> List[Tensor]:
        """d loss / d input of an inner pass; the parameters' gradients are kept, at no price."""
        return self.kept.backward(loss, inputs)

    def put_away(self, loss: Tensor) -> Tensor:
        """A finished part of the objective, without its activations if memory is short."""
        if not self.criterion.sequential:
            return loss
        self.backward(loss)
        return loss.detach()

    def compare(
        self,
        passes: Sequence[Pass],
        compare: Compare,
        *,
        compare_weight: float = 1.0,
        features: bool = False,
    ) -> Compared:
        r"""Passes of one batch, and their comparison.

        .. math:: L = \sum_k w_k CE_k + c \sum D(o_1, \dots, o_K)

        Args:
            compare: D, of all passes in their order, by their ``outputs``.
            compare_weight: c.
            features: whether the outputs hold final hidden states, too.
        """
        run = comparisons.passes_in_turn if self.criterion.sequential else comparisons.passes
        return run(self, passes, compare, compare_weight, features=features)

    def compare_forked(
        self,
        layer: int,
        noise: Noise,
        compare: OfTwo,
        *,
        compare_weight: float,
    ) -> Compared:
        """A clean pass, and one that differs from it by noise on the hidden states of a layer.

        What lies below the layer is computed once.

        Args:
            layer: 1-based; 0 is the embedding layer. noise: as for ``fork.forked``.
            compare: of the noisy and the clean logits.
        """
        run = comparisons.forked_at_in_turn if self.criterion.sequential else comparisons.forked_at
        return run(self, layer, noise, compare, compare_weight)

    def compare_from_clean(
        self,
        deltas: Found,
        compare: OfTwo,
        *,
        compare_weights: Sequence[float],
    ) -> Compared:
        r"""A clean pass, and one on a perturbation that is found from the clean one's prediction.

        .. math:: L = CE_1 + \sum_i c_i D_i(o_2, o_1)

        Args:
            deltas: makes of the clean logits what to add to the word embeddings, (B, T, d) for each call
                of the model; it may run passes of its own.
            compare: makes (P,) parts of the perturbed and the clean logits. compare_weights: theirs.
        """
        run = comparisons.from_clean_in_turn if self.criterion.sequential else comparisons.from_clean
        return run(self, deltas, compare, compare_weights)

    def finish(self, first: BasePass, term: Tensor, value: Tensor, **meters: Tensor) -> Any:
        """What a criterion returns: fairseq's triple (loss, sample size, logging output).

        Args:
            first: the pass whose logging stands for the step's.
            term: what is left to be differentiated; value: the objective.
            meters: what to log beside it.
        """
        loss = with_value(term, value.detach())
        if self._kept is not None:
            loss = self._kept.attach(loss)
        log = {name: each.detach() if torch.is_tensor(each) else each for name, each in meters.items()}
        first.logging.update(log, objective=loss.detach())
        return loss, first.sample_size, first.logging
