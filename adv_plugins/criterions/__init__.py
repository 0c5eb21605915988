"""The criterions; importing them registers them with fairseq."""

from adv_plugins.criterions import asa, freelb, rapt, rat, sentence_prediction  # noqa: F401
