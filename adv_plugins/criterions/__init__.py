"""The criterions; importing them registers them with fairseq."""

from adv_plugins.criterions import rat, sentence_prediction  # noqa: F401
