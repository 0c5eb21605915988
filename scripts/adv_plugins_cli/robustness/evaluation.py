"""A plan carried out: one model in memory at a time, results as plain values for reports and JSON."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adv_plugins_cli.checkpoints.predictor import Predictor
from adv_plugins_cli.checkpoints.trained_model import TrainedModel
from adv_plugins_cli.robustness import calibration, embedding_study, text_study
from adv_plugins_cli.robustness.attacks.victim import ModelVictim
from adv_plugins_cli.robustness.metrics import Metric, metrics_of
from adv_plugins_cli.robustness.outputs import Outputs, outputs_of
from adv_plugins_cli.robustness.plan import Plan
from adv_plugins_cli.robustness.results_file import ResultsFile
from adv_plugins_cli.robustness.rows import Rows, encode_rows, read_split
from adv_plugins_cli.robustness.seeds import over_seeds
from adv_plugins_cli.robustness.statistics import difference, draws, estimate, mcnemar
from adv_plugins_cli.robustness.text_study import LabelledText
from adv_plugins_cli.robustness.worst_case import hash_of

Right = NDArray[np.bool_]


class Evaluation:
    """What is known so far; ``results`` holds plain values only."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.results: dict[str, Any] = {
            "names": plan.names,
            "checkpoints": [str(model.checkpoint) for model in plan.models],
            "kind": plan.models[0].kind,
            "labels": list(plan.models[0].labels),
            "data": plan.data,
            "split": plan.split,
            "seed": plan.seed,
            "seconds_per_row": {},
        }
        self.text = plan.text
        if plan.text is not None:
            self.text = plan.text.take(self.chosen(len(plan.text.rows), plan.rows, "rows"))
        self.outputs: list[Outputs] = []
        self.hits: dict[str, list[Right]] = {}
        self.attacks: dict[str, list[list[dict[str, Any]]]] = {}
        self.curves: list[list[dict[str, Any]]] = []
        self.worst: list[list[dict[str, Any]]] = []

    def chosen(self, count: int, most: int | None, purpose: str) -> list[int]:
        """The numbers of at most so many rows, drawn at random, ascending."""
        if most is None or most >= count:
            return list(range(count))
        seed = hash_of(self.plan.seed, *purpose.encode())
        return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())

    @contextmanager
    def timed(self, what: str, model: int, rows: int | ResultsFile) -> Iterator[None]:
        """Keep how long a row took; of a study, one that no earlier run had done."""
        begin = time.perf_counter()
        yield
        count = rows.added if isinstance(rows, ResultsFile) else rows
        if not count:
            return
        seconds = (time.perf_counter() - begin) / count
        name = self.plan.names[model]
        self.results["seconds_per_row"].setdefault(what, {})[name] = float(f"{seconds:.3g}")

    def file(self, what: str, model: int, settings: Mapping[str, Any]) -> ResultsFile:
        """Where the rows of a study of a model are kept."""
        path = self.plan.models[model].checkpoint
        state = path.stat()
        known = {"checkpoint": str(path), "size": state.st_size, "changed": state.st_mtime_ns}
        known |= {"data": self.plan.data, "split": self.plan.split, "seed": self.plan.seed}
        known |= {"rows": self.plan.rows, **settings}
        folder = self.plan.folder
        return ResultsFile(folder / "rows" / f"{what}-{model}.jsonl" if folder else None, known)

    def rows_of(self, predictor: Predictor) -> Rows | None:
        """The rows of --data as this model reads them."""
        if self.plan.split is not None:
            rows = read_split(predictor, self.plan.split)
            return rows.take(self.chosen(len(rows), self.plan.rows, "rows"))
        if self.text is None:
            return None
        assert self.plan.encoder is not None
        if any(len(right) > 1 for right in self.text.right):
            return None  # a set whose labels are no classes of the model
        labels = predictor.trained.labels
        if predictor.trained.kind == "regression":
            return encode_rows(predictor, self.plan.encoder, self.text.rows)
        renamed = [
            dataclasses.replace(row, label=labels[next(iter(right))])
            for row, right in zip(self.text.rows, self.text.right)
        ]
        return encode_rows(predictor, self.plan.encoder, renamed)

    def score(self, model: int, predictor: Predictor, rows: Rows | None) -> None:
        """All that one pass over each set can tell."""
        plan = self.plan
        if rows is not None:
            with self.timed("scores", model, len(rows)):
                self.outputs.append(outputs_of(predictor, rows, plan.batch_size))
        texts = list(plan.sets)
        if self.text is not None and predictor.trained.kind == "classification":
            texts = [self.text, *texts]
        for text in texts:
            assert plan.encoder is not None
            if text is self.text and rows is not None and not text.parts and not text.groups:
                continue
            victim = ModelVictim(predictor, plan.encoder, plan.batch_size)
            with self.timed(text.name, model, len(text.rows)):
                self.hits.setdefault(text.name, []).append(text_study.hits(victim, text))

    def attack(self, model: int, predictor: Predictor) -> None:
        """The attacks in text."""
        plan, asked = self.plan, self.plan.attacks
        assert asked is not None and self.text is not None and plan.encoder is not None
        text = self.text.take(self.chosen(len(self.text.rows), asked.rows, "attack"))
        victim = ModelVictim(predictor, plan.encoder, plan.batch_size)
        for name in asked.names:
            settings = {"attack_rows": asked.rows, "candidates": asked.candidates}
            results = self.file(name, model, settings | dataclasses.asdict(asked.limits))

            def candidates(row: int, name: str = name) -> text_study.Candidates:
                seed = hash_of(plan.seed, row)
                return text_study.candidates_of(name, asked.candidates, seed, asked.neighbours)

            title = f"{plan.names[model]}: {name}"
            with self.timed(name, model, results):
                found = text_study.attack_rows(victim, text, candidates, asked.limits, results, title)
            self.attacks.setdefault(name, []).append(found)
            if plan.folder is not None:
                from fairseq_compat.files import write_text

                path = plan.folder / f"{name}-{model}.tsv"
                write_text(path, text_study.adversarial_table(text, found))

    def draw_curves(self, model: int, predictor: Predictor, rows: Rows) -> None:
        """Accuracy against epsilon."""
        asked = self.plan.curves
        assert asked is not None
        numbers = self.chosen(len(rows), self.plan.curve_rows, "curves")
        settings = {"curve_rows": self.plan.curve_rows, **dataclasses.asdict(asked)}
        results = self.file("curves", model, settings)
        with self.timed("curves", model, results):
            self.curves.append(
                embedding_study.measure_curves(
                    predictor,
                    rows.take(numbers),
                    asked,
                    results,
                    seed=self.plan.seed,
                    batch_size=self.plan.batch_size,
                )
            )

    def right_of_all(self) -> list[int]:
        """The rows for the worst cases: those that all models get right."""
        right = np.flatnonzero(np.all([each.right for each in self.outputs], axis=0))
        places = self.chosen(len(right), self.plan.worst_rows, "embedding")
        return [int(right[place]) for place in places]

    def find_radii(self, predictor: Predictor, numbers: Sequence[int]) -> list[float]:
        """Every row's own epsilon, by the reference."""
        asked, rows = self.plan.worst_cases, self.rows_of(predictor)
        assert asked is not None and rows is not None and self.plan.reference is not None
        settings = {"numbers": list(numbers), **dataclasses.asdict(asked)}
        return embedding_study.safe_radii(
            predictor,
            rows.take(numbers),
            asked,
            self.file("epsilon", self.plan.reference, settings),
            seed=self.plan.seed,
            batch_size=self.plan.batch_size,
        )

    def find_worst(
        self, model: int, predictor: Predictor, numbers: Sequence[int], radii: list[float] | None
    ) -> None:
        """The worst cases of one model."""
        asked, rows = self.plan.worst_cases, self.rows_of(predictor)
        assert asked is not None and rows is not None
        settings = {"numbers": list(numbers), "radii": radii, **dataclasses.asdict(asked)}
        results = self.file("embedding", model, settings)
        with self.timed("worst case", model, results):
            self.worst.append(
                embedding_study.worst_cases(
                    predictor,
                    rows.take(numbers),
                    asked,
                    results,
                    radii=radii,
                    seed=self.plan.seed,
                    batch_size=self.plan.batch_size,
                )
            )

    def finish(self) -> dict[str, Any]:
        """The results."""
        if self.outputs:
            self.results["rows"] = self.outputs[0].count
            self.results["scores"] = self._scores()
            if self.outputs[0].kind != "regression":
                self.results["calibration"] = self._named(self.outputs, self._calibration)
        texts = {text.name: text for text in [*self.plan.sets, *([self.text] if self.text else [])]}
        if self.hits:
            self.results["sets"] = {
                name: self._set(texts[name], right) for name, right in self.hits.items()
            }
        if self.worst:
            self.results["worst_cases"] = {
                **dataclasses.asdict(self.plan.worst_cases or embedding_study.WorstCases()),
                "reference": None
                if self.plan.reference is None
                else self.plan.names[self.plan.reference],
                "models": self._named(self.worst, embedding_study.summarise_worst_cases),
            }
        if self.curves and self.plan.curves is not None:
            self.results["curves"] = {
                **dataclasses.asdict(self.plan.curves),
                "rows": len(self.curves[0]),
                "models": self._named(self.curves, embedding_study.summarise_curves),
            }
        if self.attacks:
            self.results["attacks"] = {
                name: {
                    "models": self._named(found, text_study.summarise_attack),
                    "examples": self._named(found, self._examples),
                }
                for name, found in self.attacks.items()
            }
        seeds = over_seeds(self.results)
        if seeds:
            self.results["over_seeds"] = seeds
        return self.results

    def _named(self, values: Sequence[Any], of: Callable[[Any], Any]) -> dict[str, Any]:
        return {name: of(value) for name, value in zip(self.plan.names, values)}

    def _scores(self) -> dict[str, Any]:
        """Of every model every metric, with its interval and its difference to the first model's."""
        labels = self.plan.models[0].labels
        metrics = [metrics_of(each, self.plan.flags, labels) for each in self.outputs]
        found = self._compared(metrics, self.outputs[0].count)
        if self.outputs[0].kind != "regression":
            self._add_mcnemar(found, [each.right for each in self.outputs])
        return found

    def _compared(self, metrics: Sequence[Mapping[str, Metric]], rows: int) -> dict[str, Any]:
        samples = list(draws(rows, self.plan.bootstrap, self.plan.seed))
        found: dict[str, Any] = {}
        for name, each in zip(self.plan.names, metrics):
            found[name] = {key: estimate(each[key], rows, samples)._asdict() for key in each}
            if each is not metrics[0]:
                for key in each:
                    other = difference(each[key], metrics[0][key], rows, samples)
                    found[name][key]["difference"] = other._asdict()
        return found

    def _add_mcnemar(self, found: dict[str, Any], right: Sequence[Right]) -> None:
        for name, each in list(zip(self.plan.names, right))[1:]:
            found[name]["accuracy"]["mcnemar"] = mcnemar(each, right[0])

    def _calibration(self, outputs: Outputs) -> dict[str, Any]:
        bins = calibration.reliability(outputs.probabilities, outputs.targets)
        classes = outputs.values.shape[1]
        return {
            "ece": calibration.calibration_error(bins),
            "brier": calibration.brier(outputs.probabilities, outputs.targets),
            "bins": {key: value.tolist() for key, value in bins._asdict().items()},
            "confusion": calibration.confusion(outputs.chosen, outputs.targets, classes).tolist(),
        }

    def _set(self, text: LabelledText, right: Sequence[Right]) -> dict[str, Any]:
        found = self._compared([{"accuracy": text_study.share(each)} for each in right], len(text.rows))
        self._add_mcnemar(found, right)
        if text.groups:
            consistent = [text_study.consistent(each, text) for each in right]
            both = self._compared(
                [{"consistency": text_study.share(each)} for each in consistent], len(text.groups)
            )
            for name in found:
                found[name] |= both[name]
        for name, each in zip(self.plan.names, right):
            found[name]["parts"] = {
                part: float(100 * each[numbers].mean()) for part, numbers in text.parts.items()
            }
        return {"rows": len(text.rows), "groups": len(text.groups), "models": found}

    def _examples(self, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows whose right class fell most, for a reader."""
        assert self.text is not None and self.plan.attacks is not None
        text = self.text.take(self.chosen(len(self.text.rows), self.plan.attacks.rows, "attack"))
        broken = [row for row in found if row["outcome"] == "broken"]
        worst = sorted(broken, key=lambda row: row["after"] - row["before"])[:EXAMPLES]
        return [
            {
                "original": list(text.rows[row["row"]].texts),
                "adversarial": list(row["texts"]),
                "label": text.rows[row["row"]].label,
                "before": row["before"],
                "after": row["after"],
            }
            for row in worst
        ]


EXAMPLES = 5  # of each attack on each model, in the report


def evaluate(plan: Plan) -> dict[str, Any]:
    """Carry it out."""
    found = Evaluation(plan)
    for number, trained in enumerate(plan.models):
        predictor = load(trained, plan)
        rows = found.rows_of(predictor)
        found.score(number, predictor, rows)
        if plan.curves is not None and rows is not None:
            found.draw_curves(number, predictor, rows)
        if plan.attacks is not None:
            found.attack(number, predictor)
        del predictor  # before the next one is loaded
    numbers, radii = found.right_of_all() if plan.worst_cases is not None else [], None
    if numbers:
        if plan.reference is not None:
            radii = found.find_radii(load(plan.models[plan.reference], plan), numbers)
        for number, trained in enumerate(plan.models):
            found.find_worst(number, load(trained, plan), numbers, radii)
    elif plan.worst_cases is not None:  # what was measured until here counts
        print(
            "--embedding: there is no row that all the checkpoints get right; not measured",
            file=sys.stderr,
        )
    return found.finish()


def load(trained: TrainedModel, plan: Plan) -> Predictor:
    """A model of the plan, in memory."""
    return Predictor(trained, raw_text=trained.task.raw_text and plan.split is not None)
