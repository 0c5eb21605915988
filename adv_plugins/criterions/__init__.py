"""The criterions; importing them registers them with fairseq."""

from adv_plugins.criterions import freelb, rapt, rat, sentence_prediction  # noqa: F401
