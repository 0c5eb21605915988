"""What a criterion carries from update to update is in the checkpoints, so that a resumed training goes
on with it.

fairseq saves a criterion's parameters and nothing else of it. A criterion that carries more has the
methods of :class:`Carries`. Its state goes among the ``extra_state`` of a checkpoint, with the
optimizer's (``--no-save-optimizer-state`` leaves out both), and comes back with the optimizer's, too:
not where that is reset, as by ``--finetune-from-model``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch.distributed as dist
from fairseq import checkpoint_utils, utils
from fairseq.trainer import Trainer

from adv_plugins.wrapped_methods import wrap_method

logger = logging.getLogger(__name__)

KEY = "carried_state"


@runtime_checkable
class Carries(Protocol):
    """What carries a state.

    carried_alike: whether all workers carry the same, so that one's is enough.
    """

    carried_alike: bool

    def carried_state(self) -> Any:
        """Tensors, numbers, lists and dictionaries of them; None for nothing."""

    def restore_carried(self, state: Any) -> None:
        """Go on with what :meth:`carried_state` has returned, its tensors on the CPU."""


def save_it() -> None:
    """Wrap saving and loading, once."""
    wrap_method(checkpoint_utils, "save_checkpoint", gathered_before)
    wrap_method(Trainer, "state_dict", with_carried_state)
    wrap_method(Trainer, "load_checkpoint", restored_after)


def gathered_before(original: Callable[..., None]) -> Callable[..., None]:
    """All workers begin to save a checkpoint, one writes it: it has to be told the others' states."""

    def save_checkpoint(cfg: Any, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if cfg.no_save or cfg.no_save_optimizer_state:
            return original(cfg, trainer, *args, **kwargs)
        trainer.gathered_states = gather(trainer)
        try:
            return original(cfg, trainer, *args, **kwargs)
        finally:
            del trainer.gathered_states

    return save_checkpoint


def gather(trainer: Any) -> list[Any]:
    """The states of all workers by their ranks, or the one of all; nothing where none is carried."""
    criterion = trainer.get_criterion()
    if not isinstance(criterion, Carries):
        return []
    if criterion.carried_alike:
        return [criterion.carried_state()] if trainer.should_save_checkpoint_on_current_rank else []
    own = utils.move_to_cpu(criterion.carried_state())
    if trainer.data_parallel_world_size == 1:
        return [own]
    states = [None] * trainer.data_parallel_world_size
    dist.all_gather_object(states, own, group=trainer.data_parallel_process_group)
    return states


def with_carried_state(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """What a checkpoint holds. A worker that fails alone saves one, too: without what others carry."""

    def state_dict(self: Any) -> dict[str, Any]:
        state = original(self)
        states = getattr(self, "gathered_states", [])
        if any(each is not None for each in states):
            state["extra_state"][KEY] = states
        return state

    return state_dict


def restored_after(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give the criterion back what this worker's carried."""

    def load_checkpoint(
        self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        extra_state = original(self, filename, reset_optimizer, *args, **kwargs)
        states = extra_state.pop(KEY, []) if extra_state else []
        criterion = self.get_criterion()
        if not states or reset_optimizer or not isinstance(criterion, Carries):
            return extra_state
        if criterion.carried_alike:
            criterion.restore_carried(states[0])
        elif len(states) == self.data_parallel_world_size:
            criterion.restore_carried(states[self.data_parallel_rank])
        else:
            logger.warning(
                "%s was saved by %d workers, now there are %d: what each had carried begins anew",
                filename,
                len(states),
                self.data_parallel_world_size,
            )
        return extra_state

    return load_checkpoint
