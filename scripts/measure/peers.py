"""One epoch of a GLUE task: fairseq as it is, ours, Hugging Face's Trainer, and loops written by hand.

    adv-plugins convert from-hf minilm minilm
    adv-plugins preprocess RTE --data-dir data/glue --wordpiece minilm --out-dir data-bin
    pip install accelerate  # which Hugging Face's Trainer needs
    python scripts/measure/peers.py minilm data-bin/RTE-bin --repeats 3

All train the same encoder (all-MiniLM-L6-v2) on the same ids in the same number of threads, float32 on
the CPU unless told otherwise, without validation and without saving; data come from the main process.
The contestants take turns, so that a busy machine is busy for all; the table has the median and the
spread of the sentences per second, and the median of the ratios within a turn to the first contestant.

What is written by hand (plain PyTorch on Hugging Face's model, as a user would write it: a forward and a
backward for each pass) gets batches of like length from Hugging Face's own sampler.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402
from fairseq import checkpoint_utils, options, tasks, utils  # noqa: E402
from fairseq.data import BaseWrapperDataset, iterators  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.trainer import Trainer  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from transformers.trainer_pt_utils import LengthGroupedSampler  # noqa: E402

import adv_plugins  # noqa: E402, F401
from adv_plugins_cli.command import one_line_errors, positive, read_json  # noqa: E402
from adv_plugins_cli.convert_from_hf import find_source  # noqa: E402
from fairseq_compat.files import write_json  # noqa: E402

LR = 2e-5
EPSILON, CONSISTENCY, ASCENTS, STEP_SIZE = 0.1, 0.5, 2, 0.1


class Rows(Dataset):
    """The ids and the label of each training row, as fairseq batches them, for Hugging Face."""

    def __init__(self, dataset: Any) -> None:
        self.rows = []
        for index in sorted(dataset.ordered_indices()):
            row = dataset[index]
            ids = row["net_input.src_tokens"].tolist()
            self.rows.append({"input_ids": ids, "labels": int(row["target"])})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def fairseq_trainer(arguments: argparse.Namespace, folder: str, flags: str) -> Trainer:
    """fairseq's Trainer with the encoder's weights."""
    architecture = read_json(arguments.encoder / "architecture.json")["flags"]
    line = [
        *(str(arguments.data), "--task", "sentence_prediction", "--init-token", "0"),
        *("--num-classes", str(arguments.num_classes), *architecture, "--batch-size"),
        *(str(arguments.batch_size), "--required-batch-size-multiple", "1", "--num-workers", "0"),
        *("--adam-betas", "(0.9, 0.98)", "--adam-eps", "1e-06", "--weight-decay", "0.1"),
        *("--lr", str(LR), "--lr-scheduler", "fixed", "--dropout", "0.1", "--attention-dropout", "0.1"),
        *("--finetune-from-model", str(arguments.encoder / "model.pt"), "--save-dir", folder),
        *("--disable-validation", "--seed", "1", *flags.split()),
        *(() if torch.cuda.is_available() else ("--cpu",)),
    ]
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), line)
    )
    utils.set_torch_seed(1)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    checkpoint_utils.load_checkpoint(cfg.checkpoint, trainer)
    if arguments.rows:
        task.datasets["train"] = FirstRows(task.datasets["train"], arguments.rows)
    return trainer


class FirstRows(BaseWrapperDataset):
    """The first rows of a dataset: for everybody the same ones."""

    def __init__(self, dataset: Any, rows: int) -> None:
        super().__init__(dataset)
        self.rows = rows

    def ordered_indices(self) -> Any:
        indices = self.dataset.ordered_indices()
        return indices[indices < self.rows]


class Fairseq:
    """An epoch of fairseq's trainer."""

    def __init__(self, arguments: argparse.Namespace, folder: str, flags: str) -> None:
        self.trainer = fairseq_trainer(arguments, folder, flags)
        self.epoch = 0

    def __call__(self) -> tuple[int, float]:
        self.epoch += 1
        began = time.perf_counter()
        epochs = self.trainer.get_train_iterator(self.epoch, load_dataset=False)
        self.trainer.begin_epoch(self.epoch)
        rows = 0
        for samples in iterators.GroupedIterator(epochs.next_epoch_itr(shuffle=True), 1):
            self.trainer.train_step(samples)
            rows += samples[0]["nsentences"]
        return rows, time.perf_counter() - began


class HuggingFace:
    """An epoch of Hugging Face's Trainer."""

    def __init__(self, arguments: argparse.Namespace, data: Rows, folder: str, grouped: bool) -> None:
        self.arguments, self.folder, self.grouped = arguments, folder, grouped
        self.model = encoder(arguments)
        self.data = data

    def __call__(self) -> tuple[int, float]:
        grouping: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if self.grouped else {}
        names = transformers.TrainingArguments.__dataclass_fields__
        if "group_by_length" in names:  # before transformers 5
            grouping = {"group_by_length": self.grouped}
        settings: dict[str, Any] = dict(
            output_dir=self.folder,
            num_train_epochs=1,
            per_device_train_batch_size=self.arguments.batch_size,
            learning_rate=LR,
            weight_decay=0.1,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **grouping,
        )
        trainer = transformers.Trainer(
            model=self.model,
            args=transformers.TrainingArguments(**settings),
            train_dataset=self.data,
            data_collator=collate,
        )
        began = time.perf_counter()
        trainer.train()
        return len(self.data), time.perf_counter() - began


class ByHand:
    """An epoch of a loop that calls the model as often as the method says."""

    def __init__(self, arguments: argparse.Namespace, data: Rows, losses: Callable[..., None]) -> None:
        self.model = encoder(arguments).to("cuda" if torch.cuda.is_available() else "cpu").train()
        self.losses = losses
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.1)
        lengths = [len(row["input_ids"]) for row in data.rows]
        sampler = LengthGroupedSampler(arguments.batch_size, lengths=lengths)
        self.batches = DataLoader(
            data, batch_size=arguments.batch_size, sampler=sampler, collate_fn=collate
        )

    def __call__(self) -> tuple[int, float]:
        began = time.perf_counter()
        rows = 0
        for batch in self.batches:
            inputs = {name: value.to(self.model.device) for name, value in batch.items()}
            labels = inputs.pop("labels")
            self.losses(self.model, inputs, labels)
            self.optimizer.step()
            self.optimizer.zero_grad()
            rows += len(labels)
        return rows, time.perf_counter() - began


def rdrop_by_hand(model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> None:
    """R-Drop: two passes, the mean of their cross entropies and their KL."""
    first, second = model(**inputs).logits, model(**inputs).logits
    cross_entropies = (F.cross_entropy(first, labels) + F.cross_entropy(second, labels)) / 2
    (cross_entropies + symmetric_kl(first, second) / 2).backward()


def symmetric_kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Half of both directions' sum, the mean over the sentences."""
    p, q = F.log_softmax(first, -1), F.log_softmax(second, -1)
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def rat_by_hand(model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> None:
    """R-AT: a clean pass, its gradient, two passes there, their cross entropies and their KL."""
    mask = inputs["attention_mask"]
    words = model.get_input_embeddings()(inputs["input_ids"])
    loss = F.cross_entropy(model(inputs_embeds=words, attention_mask=mask).logits, labels)
    words.retain_grad()
    loss.backward()
    delta = words.grad * mask.unsqueeze(-1)
    delta = EPSILON * delta / delta.norm()

    def passed() -> torch.Tensor:
        embeddings = model.get_input_embeddings()(inputs["input_ids"]) + delta
        return model(inputs_embeds=embeddings, attention_mask=mask).logits

    first, second = passed(), passed()
    adversarial = (F.cross_entropy(first, labels) + F.cross_entropy(second, labels)) / 2
    (adversarial + CONSISTENCY * symmetric_kl(first, second)).backward()


def freelb_by_hand(model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> None:
    """FreeLB: as many passes as ascents and one, a backward each."""
    mask = inputs["attention_mask"]
    shape = (*mask.shape, model.config.hidden_size)
    delta = torch.zeros(shape, device=mask.device)
    for ascent in range(ASCENTS + 1):
        delta.requires_grad_()
        words = model.get_input_embeddings()(inputs["input_ids"]) + delta
        loss = F.cross_entropy(model(inputs_embeds=words, attention_mask=mask).logits, labels)
        (loss / (ASCENTS + 1)).backward()
        if ascent < ASCENTS:
            gradient = delta.grad * mask.unsqueeze(-1)
            norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
            delta = (delta + STEP_SIZE * gradient / norm).detach()


def encoder(arguments: argparse.Namespace) -> Any:
    """Hugging Face's model of the same weights."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        arguments.source, num_labels=arguments.num_classes
    )


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch padded to its longest row."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[number, : len(row["input_ids"])] = 1
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def contestants(arguments: argparse.Namespace, folder: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Their names and how each begins."""
    plain = "--criterion sentence_prediction"
    rat = "--criterion rat_criterion"
    freelb = f"--criterion freelb_criterion --adv-steps {ASCENTS + 1}"
    fast = "--group-by-length 50 --optimizer adamw_fused"
    ours = partial(Fairseq, arguments, folder)
    yield "Trainer, grouped", lambda: HuggingFace(arguments, rows(arguments, folder), folder, True)
    yield "Trainer, random", lambda: HuggingFace(arguments, rows(arguments, folder), folder, False)
    yield "fairseq", lambda: ours(f"{plain} --optimizer adam")
    yield "ours, plain", lambda: ours(f"{plain} {fast}")
    yield "ours, plain, adam", lambda: ours(f"{plain} --group-by-length 50 --optimizer adam")
    yield "ours, plain, bfloat16", lambda: ours(f"{plain} {fast} --amp --amp-dtype bfloat16")
    yield "R-Drop by hand", lambda: ByHand(arguments, rows(arguments, folder), rdrop_by_hand)
    yield "ours, R-Drop", lambda: ours(f"--criterion rdrop_criterion {fast}")
    yield "R-AT by hand", lambda: ByHand(arguments, rows(arguments, folder), rat_by_hand)
    yield "ours, R-AT", lambda: ours(f"{rat} {fast}")
    yield "FreeLB by hand", lambda: ByHand(arguments, rows(arguments, folder), freelb_by_hand)
    yield "ours, FreeLB", lambda: ours(f"{freelb} {fast}")


def rows(arguments: argparse.Namespace, folder: str) -> Rows:
    """The training data as fairseq reads them."""
    trainer = fairseq_trainer(arguments, folder, "--criterion sentence_prediction --optimizer adam")
    return Rows(trainer.task.dataset("train"))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path, help="folder of adv-plugins convert from-hf")
    parser.add_argument("data", type=Path, help="preprocessed data")
    parser.add_argument("--source", type=Path, help="what was converted (default: the package's MiniLM)")
    parser.add_argument("--num-classes", type=positive, default=2, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=24, help="(default: %(default)s)")
    parser.add_argument("--rows", type=positive, help="the first ones of the data alone")
    parser.add_argument("--repeats", type=positive, default=3, help="(default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contestants, by name")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    if arguments.source is None:
        with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
            arguments.source = find_source(Path("minilm"))
    return arguments


def show(times: dict[str, list[float]]) -> None:
    """Print the table, and what is to be compared. times: sentences per second of each turn."""
    first = next(iter(times))
    print("| | sentences / s (min - max) | ratio (min - max) |")
    print("| --- | ---: | ---: |")
    for name, own in times.items():
        print(f"| {name} | {spread(own, 1)} | {ratio(times, name, first)} |", flush=True)
    pairs = [("ours, plain", "fairseq"), ("ours, plain, bfloat16", "ours, plain")]
    pairs += [(f"ours, {name}", f"{name} by hand") for name in ("R-Drop", "R-AT", "FreeLB")]
    for one, other in pairs:
        if one in times and other in times:
            print(f"{one} / {other}: {ratio(times, one, other)}", flush=True)


def ratio(times: dict[str, list[float]], one: str, other: str) -> str:
    """Of two contestants' speeds within a turn."""
    return spread([own / others for own, others in zip(times[one], times[other])], 2)


def spread(values: list[float], digits: int) -> str:
    """Median, minimum and maximum."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({least:.{digits}f} - {most:.{digits}f})"


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        racing = {
            name: begin()
            for name, begin in contestants(arguments, folder)
            if not arguments.only or name in arguments.only
        }
        times: dict[str, list[float]] = {name: [] for name in racing}
        for turn in range(arguments.repeats):
            for name, epoch in racing.items():
                sentences, seconds = epoch()
                times[name].append(sentences / seconds)
                print(f"turn {turn + 1}: {name}: {sentences / seconds:.1f} sentences / s", flush=True)
    show(times)
    if arguments.json:
        facts = {name: str(value) for name, value in vars(arguments).items() if name != "source"}
        write_json(arguments.json, {"arguments": facts, "sentences_per_second": times})


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments()
    with one_line_errors("peers.py"):
        run(arguments)


if __name__ == "__main__":
    main()
