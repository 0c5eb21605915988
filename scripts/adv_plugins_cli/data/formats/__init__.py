"""The official file formats of the tasks beside GLUE; ``TASKS`` knows them all by name."""

from adv_plugins_cli.data.formats.choices import TASKS as CHOICE_TASKS
from adv_plugins_cli.data.formats.classification import TASKS as CLASSIFICATION_TASKS
from adv_plugins_cli.data.formats.common import Format
from adv_plugins_cli.data.formats.entities import TASKS as ENTITY_TASKS
from adv_plugins_cli.data.formats.pairs import TASKS as PAIR_TASKS

TASKS: dict[str, Format] = {
    task.name: task for task in (*CLASSIFICATION_TASKS, *CHOICE_TASKS, *PAIR_TASKS, *ENTITY_TASKS)
}

__all__ = ["TASKS", "Format"]
