"""The names of a task's classes in its checkpoints.

A class is a number there, and the data's label dictionary gives it a name: data that are written anew
may number them in another order, and every prediction of the checkpoint is then wrong in silence.
"""

from typing import Any, Dict, List, Type

from fairseq.tasks import FairseqTask

from adv_plugins.tasks.token_labels import label_names
from fairseq_compat.errors import UserError

LABELS = "label_names"  # in the checkpoint's task_state


def record_labels(task: Type[FairseqTask]) -> None:
    """Let ``task`` write the names of its classes into its checkpoints, in their order.

    When fairseq loads such a checkpoint to validate it, data with other names or another order raise a
    ValueError. Checkpoints without the record are loaded as ever.
    """
    stock_setup = task.setup_task.__func__
    stock_load = task.load_state_dict

    def setup_task(cls: Any, /, cfg: Any, **kwargs: Any) -> FairseqTask:
        made = stock_setup(cls, cfg, **kwargs)
        if not getattr(cfg, "regression_target", False):
            names: List[str] = label_names(made.label_dictionary)
            # fairseq's tasks add <mask> to every dictionary they read
            made.state.merge_state_dict({LABELS: [name for name in names if name != "<mask>"]})
        return made

    def load_state_dict(self: Any, state_dict: Dict[str, Any]) -> None:
        ours, theirs = self.state.state_dict.get(LABELS), state_dict.get(LABELS)
        if ours is not None and theirs is not None and ours != theirs:
            raise UserError(
                f"{self.cfg.data}: its labels are {' '.join(ours)}, but the checkpoint was trained with "
                f"{' '.join(theirs)}, in this order: give the data that it was trained on"
            )
        stock_load(self, state_dict)

    task.setup_task = classmethod(setup_task)
    task.load_state_dict = load_state_dict
