"""One training step of a method, and the only place that knows how its passes are run.

A method says WHICH passes it makes and how their predictions are compared; a step knows the distributed
wrapper, of which one pass an update is reduced, the word embeddings, the gradients that inner passes
leave behind (``gradients.py``), the dropout masks (``dropout.py``), and whether passes that are compared
are one larger batch, one after the other, or one in memory at a time (``sequential.py``).
"""

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from adv_plugins.base_pass import BasePass, mean_pass
from adv_plugins.batch import repeat_sample, source_tokens
from adv_plugins.divergence import full_precision
from adv_plugins.dropout import SameMasks, dropout_rate, drops_layers, entered_with, states_at_entry
from adv_plugins.fork import Call, body, called, forked, hidden_states, resumed, states_up_to
from adv_plugins.gradients import KeptGradients, check_one_reduction, frozen
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
from adv_plugins.sequential import Postponed, delivered, leaf, with_value


@dataclass(frozen=True)
class Pass:
    """One of the passes that a method compares.

    weight: of its loss in the objective; deltas: what to add to the word embeddings, (B, T, d) for each
    call of the model; dropout: the rate of this pass alone; within: makes a context to be in meanwhile,
    whose value is kept; write: whether the base may write its predictions file.
    """

    weight: float = 0.0
    deltas: Optional[Sequence[Tensor]] = None
    dropout: Optional[float] = None
    within: Optional[Callable[[], ContextManager[Any]]] = None
    write: bool = False


class Ran(NamedTuple):
    """A pass that was made.

    base: what the base criterion made of it; outputs: its logits (N, C) and, if they were asked for, the
    (B, d) final hidden states of the first position for each call; inside: the value of its context.
    """

    base: BasePass
    outputs: Tuple[Tensor, ...]
    inside: Any


# The parts of a comparison of passes, a scalar or (P,).
Compare = Callable[[List[Ran]], Tensor]


class Compared(NamedTuple):
    """Passes and their comparison.

    passes: in their order; together, as one, if they were one batch. first: the first one, or the mean
    of passes that are alike, to log. loss: sum of their losses; parts: of the comparison; value: the
    objective. All three without gradient. term: a scalar whose backward, with the gradients that the
    step keeps, is that of the objective.
    """

    passes: List[Ran]
    first: BasePass
    loss: Tensor
    parts: Tensor
    value: Tensor
    term: Tensor


class FirstLayer(NamedTuple):
    """Of a pass, with an entry for each call of the model: the (T, B, d) states at the first layer's
    output, the arguments, and the random states that the dropout masks come from."""

    states: List[Tensor]
    calls: List[Call]
    masks: List[List[Tensor]]


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
        return SameMasks(self._device)

    @cached_property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _perturbed(self, deltas: Sequence[Tensor]) -> ContextManager[None]:
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
            with nullcontext() if deltas is None else self._perturbed(deltas):
                model = self.model if last else self.module
                return self.criterion.run_base(model, self.sample, write=write, logits=False)

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
            with self._perturbed(deltas):
                base = self.criterion.run_base(
                    self.module, self.sample, write=write, logits=loss is not None
                )
            gradients = kept.backward(base.loss if loss is None else loss(base), deltas)
        return _without_graph(base), gradients

    @contextmanager
    def first_layer(self) -> Iterator[FirstLayer]:
        """Within the context: what is to be known of a pass for :meth:`ascent_below`."""
        device = self._device
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
        replayed = entered_with(body(self.module), first.masks, self._device)
        with frozen(self.module), replayed if same_dropout else nullcontext(), self._perturbed(deltas):
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
        if self.criterion.sequential:
            return self._compare_in_turn(passes, compare, compare_weight, features)
        if self._are_alike(passes) and not features and not drops_layers(self.module):
            return self._compare_joined(passes, compare, compare_weight)
        ran = [
            self._run(each, features=features, last=number == len(passes))
            for number, each in enumerate(passes, start=1)
        ]
        parts = compare(ran)
        term = compare_weight * parts.sum() + sum(
            each.weight * one.base.loss for each, one in zip(passes, ran) if each.weight
        )
        return _compared(ran, parts, term)._replace(first=self._first(passes, ran))

    def _run(self, each: Pass, *, features: bool, last: bool) -> Ran:
        model = self.model if last else self.module
        with ExitStack() as stack:
            if each.dropout is not None:
                stack.enter_context(dropout_rate(self.module, each.dropout))
            if each.deltas is not None:
                stack.enter_context(self._perturbed(each.deltas))
            inside = stack.enter_context(each.within()) if each.within else None
            states = stack.enter_context(captured_features(self.module)) if features else ()
            base = self.criterion.run_base(model, self.sample, write=each.write)
        return Ran(base, (base.logits, *states), inside)

    @staticmethod
    def _are_alike(passes: Sequence[Pass]) -> bool:
        """Whether they differ by their deltas (all have some, or none) and dropout masks alone."""
        return all(
            (each.deltas is None) == (passes[0].deltas is None)
            and each.dropout is None
            and each.within is None
            and each.weight == passes[0].weight
            and not each.write
            for each in passes
        )

    def _first(self, passes: Sequence[Pass], ran: Sequence[Ran]) -> BasePass:
        """What to log of passes that were made one by one."""
        if len(ran) > 1 and self._are_alike(passes):
            return mean_pass([each.base for each in ran])
        return ran[0].base

    def _compare_joined(self, passes: Sequence[Pass], compare: Compare, weight: float) -> Compared:
        """All passes as one of a larger batch."""
        deltas = [torch.cat(calls) for calls in zip(*(each.deltas or () for each in passes))]
        with self._perturbed(deltas) if deltas else nullcontext():
            whole = self.criterion.run_base(self.model, repeat_sample(self.sample, len(passes)))
        parts = compare([Ran(whole, (each,), None) for each in whole.logits.chunk(len(passes))])
        term = passes[0].weight * whole.loss + weight * parts.sum()
        joined = _compared([Ran(whole, (whole.logits,), None)], parts, term)
        return joined._replace(first=joined.first.mean_of(len(passes)))

    def _compare_in_turn(
        self, passes: Sequence[Pass], compare: Compare, weight: float, features: bool
    ) -> Compared:
        """One pass's activations in memory at a time: the others' values are enough to know the
        comparison's gradient for the first; then each is run again to receive its own."""
        run = partial(self._run, features=features)
        first = run(passes[0], last=len(passes) == 1)
        postponed = [Postponed(partial(_run_again, run, each), self._device) for each in passes[1:]]
        leaves = [
            each.values._replace(outputs=tuple(map(leaf, each.values.outputs))) for each in postponed
        ]
        parts = compare([first, *leaves])
        term = passes[0].weight * first.base.loss + weight * parts.sum()
        if not postponed:
            return _compared([first], parts, term)
        gradients = iter(self.backward(term, [output for each in leaves for output in each.outputs]))
        value, parts = term.detach(), parts.detach()
        ran = [Ran(_without_graph(first.base), (), first.inside)]
        del first, term
        for number, (each, waiting) in enumerate(zip(passes[1:], postponed), start=2):
            last = number == len(passes)
            again = waiting.again(last)
            value = value + each.weight * again.base.loss.detach()
            term = delivered(again.outputs, [next(gradients) for _ in again.outputs])
            if each.weight:
                term = term + each.weight * again.base.loss
            if not last:
                self.backward(term)
                again = Ran(_without_graph(again.base), (), again.inside)
            ran.append(again)
        loss = torch.stack([each.base.loss.detach() for each in ran]).sum()
        return Compared(ran, self._first(passes, ran), loss, parts, value, term)

    def compare_forked(
        self,
        layer: int,
        noise: Callable[[Tensor, int], Tensor],
        compare: Callable[[Tensor, Tensor], Tensor],
        *,
        compare_weight: float,
    ) -> Compared:
        """A clean pass, and one that differs from it by noise on the hidden states of a layer.

        What lies below the layer is computed once.

        Args:
            layer: 1-based; 0 is the embedding layer. noise: as for ``fork.forked``.
            compare: of the noisy and the clean logits.
        """
        if self.criterion.sequential:
            return self._compare_forked_in_turn(layer, noise, compare, compare_weight)
        with forked(self.module, layer=layer, noise=noise) as noisy_outputs:
            clean = self.criterion.run_base(self.model, self.sample, write=True)
        noisy = self.criterion.join([full_precision(each) for each in noisy_outputs], self.sample)
        parts = compare(noisy, clean.logits)
        return _compared([Ran(clean, (), None)], parts, clean.loss + compare_weight * parts)

    def _compare_forked_in_turn(
        self,
        layer: int,
        noise: Callable[[Tensor, int], Tensor],
        compare: Callable[[Tensor, Tensor], Tensor],
        weight: float,
    ) -> Compared:
        """The same with one pass in memory: the noisy one first, from the clean one's values."""

        def run(differentiated: bool) -> Tuple[BasePass, List[Tensor]]:
            model = self.model if differentiated else self.module
            with hidden_states(self.module, layer=layer) as states:
                return self.criterion.run_base(model, self.sample, write=differentiated), states

        postponed = Postponed(run, self._device)
        leaves = [leaf(each) for each in (postponed.values[0].logits, *postponed.values[1])]
        noisy_states = [state + noise(state, call) for call, state in enumerate(leaves[1:])]
        with resumed(self.module, layer=layer, states=noisy_states):
            noisy = self.criterion.run_base(self.module, self.sample)
        parts = compare(noisy.logits, leaves[0])
        gradients = self.backward(weight * parts, leaves)
        parts = parts.detach()
        del noisy, noisy_states
        clean, states = postponed.again(True)
        term = clean.loss + delivered([clean.logits, *states], gradients)
        loss = clean.loss.detach()
        return Compared([Ran(clean, (), None)], clean, loss, parts, loss + weight * parts, term)

    def compare_from_clean(
        self,
        deltas: Callable[[Tensor], Sequence[Tensor]],
        compare: Callable[[Tensor, Tensor], Tensor],
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

        def weighed(parts: Tensor) -> Tensor:
            return torch.stack([w * part for w, part in zip(compare_weights, parts.unbind())]).sum()

        if self.criterion.sequential:
            return self._compare_from_clean_in_turn(deltas, compare, weighed)
        clean = self.criterion.run_base(self.module, self.sample, write=True)
        perturbed = self._run(Pass(deltas=deltas(clean.logits.detach())), features=False, last=True).base
        parts = compare(perturbed.logits, clean.logits)
        return _compared([Ran(clean, (), None)], parts, clean.loss + weighed(parts))

    def _compare_from_clean_in_turn(
        self,
        deltas: Callable[[Tensor], Sequence[Tensor]],
        compare: Callable[[Tensor, Tensor], Tensor],
        weighed: Callable[[Tensor], Tensor],
    ) -> Compared:
        """The same with one pass in memory: the clean one's values, then the others, then it again."""

        def run(differentiated: bool) -> BasePass:
            model = self.model if differentiated else self.module
            return self.criterion.run_base(model, self.sample, write=differentiated)

        postponed = Postponed(run, self._device)
        logits = leaf(postponed.values.logits)
        found = deltas(logits.detach())
        perturbed = self._run(Pass(deltas=found), features=False, last=False).base
        parts = compare(perturbed.logits, logits)
        (gradient,) = self.backward(weighed(parts), [logits])
        parts = parts.detach()
        del perturbed
        clean = postponed.again(True)
        loss = clean.loss.detach()
        term = clean.loss + delivered([clean.logits], [gradient])
        return Compared([Ran(clean, (), None)], clean, loss, parts, loss + weighed(parts), term)

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


def _run_again(run: Callable[..., Ran], each: Pass, last: bool) -> Ran:
    return run(each, last=last)


def _compared(ran: List[Ran], parts: Tensor, term: Tensor) -> Compared:
    loss = torch.stack([each.base.loss.detach() for each in ran]).sum()
    return Compared(ran, ran[0].base, loss, parts.detach(), term.detach(), term)


def _without_graph(base: BasePass) -> BasePass:
    return base._replace(loss=base.loss.detach(), logits=None)
