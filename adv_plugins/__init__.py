"""Perturbation-based training for fairseq: ``fairseq-train --user-dir adv_plugins ...``.

Importing this package registers its criterions, models and tasks with fairseq, and wraps a few methods
of fairseq's, each in the module that says why: nothing else happens.
"""

import fairseq_compat
from fairseq_compat import errors, validations

fairseq_compat.check_versions()
fairseq_compat.install()

from adv_plugins import (  # noqa: E402
    adamw_fused,  # noqa: F401
    carried_state,
    checkpointing,
    clipping,
    criterions,  # noqa: F401
    dead_weights,
    group_by_length,
    models,  # noqa: F401
    named_faults,
    precision,
    replays,
    resuming,
    tasks,  # noqa: F401
    trainer_checks,
    updates,
    wordpiece,  # noqa: F401
)

dead_weights.remove()  # parameters that fairseq's layers have and cannot use
checkpointing.add_flag()  # --checkpoint-activations for RoBERTa
precision.offer()  # --bf16, and --amp on a CPU
group_by_length.add_option()  # batches with less padding, which the trainer's checks look at
replays.add()  # batches of which a criterion wants several updates, one after the other
updates.announce()  # criterions hear of a new update
clipping.clip_apart()  # --clip-norm with an adversary
trainer_checks.add_checks()  # what can be known before the first update is said before it
named_faults.name_faults()  # so is what is wrong with data or architecture
carried_state.save_it()  # what a criterion carries from update to update is in its checkpoints
errors.show_in_one_line()  # without a traceback
resuming.wrap()  # a killed training goes on as if it had not been
validations.record()  # its validations are kept in a file

__version__ = "0.1.0"
