"""Sets of labelled text, by name: those that people made to find a model out, and GLUE's own."""

from __future__ import annotations

from adv_plugins_cli.robustness.sets import advglue, glue, inference, pairs, paraphrases

SETS = {
    each.name: each for module in (advglue, pairs, paraphrases, inference, glue) for each in module.SETS
}
