"""How ASA's game goes on a real encoder: each player's gradient, what the adversary masks and gains.

    adv-plugins convert from-hf minilm minilm
    adv-plugins preprocess SST-2 --data-dir data/glue --wordpiece minilm --out-dir data-bin
    python scripts/measure/measure_asa_players.py minilm data-bin/SST-2-bin --updates 120

Every update goes through fairseq's own Trainer, at a constant learning rate from the first one on. Each
row is a block of updates: the training loss (base 2) without ASA, from the same seed, and with it; L_asa
(base 2); the masked proportion of all layers and of each, lowest first; and the norm of the model's and
of the adversary's gradient, each by itself and before it is clipped, as median and maximum. --task
masked_lm is the paper's pre-training (Eq. 10), on the folder of preprocess_text.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
from fairseq import checkpoint_utils, metrics, options, tasks, utils  # noqa: E402
from fairseq.data import iterators  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.trainer import Trainer  # noqa: E402

import adv_plugins  # noqa: E402, F401
from adv_plugins.asa_game import LAYER_METER  # noqa: E402
from adv_plugins.models.asa_roberta import ADVERSARY  # noqa: E402
from adv_plugins_cli.checkpoints.architecture import ARCHITECTURE, read_architecture  # noqa: E402
from adv_plugins_cli.command import UserError, one_line_errors  # noqa: E402

TASKS = {
    "sentence_prediction": "--num-classes {classes} --init-token 0 --shorten-method truncate",
    "masked_lm": "--sample-break-mode complete --tokens-per-sample {length} --shorten-method truncate",
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path, help="folder of adv-plugins convert from-hf")
    parser.add_argument("data", type=Path, help="preprocessed data")
    parser.add_argument("--task", default="sentence_prediction", choices=list(TASKS))
    parser.add_argument("--num-classes", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--updates", type=int, default=120, help="(default: %(default)s)")
    parser.add_argument("--block", type=int, default=20, help="updates in a row (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens of masked LM (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-4, help="(default: %(default)s)")
    parser.add_argument("--tau", type=float, default=0.3, help="--asa-tau (default: %(default)s)")
    parser.add_argument("--clip-norm", type=float, default=0.0, help="(default: %(default)s, none)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    arguments = parser.parse_args()
    for option in ("updates", "block", "batch_size"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be at least 1")
    return arguments


def make_trainer(arguments: argparse.Namespace, asa: bool, folder: str) -> tuple[Trainer, Any]:
    """fairseq's Trainer with the encoder's weights, and its iterator over the training data."""
    architecture = read_architecture(arguments.encoder)
    if architecture is None:
        raise UserError(f"{arguments.encoder / ARCHITECTURE}: no such file (convert from-hf makes it)")
    criterion = ["--criterion", arguments.task]
    if asa:
        criterion = ["--criterion", "asa_criterion", "--asa-tau", str(arguments.tau)]
    task = TASKS[arguments.task].format(classes=arguments.num_classes, length=arguments.length)
    flags = architecture.flags(adversaries=asa)
    line = [
        *(str(arguments.data), "--task", arguments.task, *task.split(), *flags, *criterion),
        *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--adam-eps", "1e-06"),
        *("--lr", str(arguments.lr), "--lr-scheduler", "fixed", "--weight-decay", "0.01"),
        *("--dropout", "0.1", "--attention-dropout", "0.1", "--clip-norm", str(arguments.clip_norm)),
        *("--batch-size", str(arguments.batch_size), "--seed", str(arguments.seed)),
        *("--finetune-from-model", str(arguments.encoder / "model.pt"), "--save-dir", folder),
        "--disable-validation",  # the training data alone are looked at
        *(() if torch.cuda.is_available() else ("--cpu",)),
    ]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, line))
    utils.set_torch_seed(arguments.seed)
    set_up = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, set_up, set_up.build_model(cfg.model), set_up.build_criterion(cfg.criterion))
    return trainer, checkpoint_utils.load_checkpoint(cfg.checkpoint, trainer)[1]


def norms(model: torch.nn.Module) -> dict[str, float]:
    """The L2 norm of each player's gradient."""
    squares = {"model": 0.0, "adversary": 0.0}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            player = "adversary" if ADVERSARY in name else "model"
            squares[player] += parameter.grad.double().pow(2).sum().item()
    return {player: square**0.5 for player, square in squares.items()}


def updates(trainer: Trainer, epochs: Any, count: int) -> Iterator[dict[str, float]]:
    """Make so many updates; yields each one's meters and gradient norms.

    Raises:
        UserError: the training data has no batch.
    """
    found: dict[str, float] = {}
    clip = trainer.clip_grad_norm

    def measured_clip(clip_norm: float) -> Any:
        found.update(norms(trainer.model))
        return clip(clip_norm)

    trainer.clip_grad_norm = measured_clip
    made = 0
    while made < count:
        batches = iterators.GroupedIterator(epochs.next_epoch_itr(shuffle=True), 1)
        trainer.begin_epoch(epochs.epoch)
        for samples in batches:
            with metrics.aggregate(new_root=True) as meters:
                trainer.train_step(samples)
            made += 1
            yield {**meters.get_smoothed_values(), **found}
            if made == count:
                return
        if not made:
            raise UserError("the training data has no batch: give a smaller --batch-size")


def blocks(arguments: argparse.Namespace, asa: bool) -> list[dict[str, list[float]]]:
    """What was measured, block by block: name -> one value an update."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, epochs = make_trainer(arguments, asa, folder)
        found: list[dict[str, list[float]]] = []
        for index, values in enumerate(updates(trainer, epochs, arguments.updates)):
            if index % arguments.block == 0:
                found.append({})
                print(f"{'with' if asa else 'without'} ASA: update {index}", file=sys.stderr)
            for name, value in values.items():
                found[-1].setdefault(name, []).append(value)
    return found


def row(plain: dict[str, list[float]], asa: dict[str, list[float]]) -> str:
    """A block's numbers as cells."""
    means = {name: statistics.mean(values) for name, values in asa.items()}
    layers = [name for name in means if name.startswith(LAYER_METER)]
    by_layer = " ".join(f"{means[f'{LAYER_METER}{i + 1}']:.2f}" for i in range(len(layers)))
    cells = [
        f"{statistics.mean(plain['loss']):.3f}",
        f"{means['loss']:.3f}",
        f"{means['asa_loss']:.4f}",
        f"{means['masked_proportion']:.3f}",
        by_layer,
    ]
    for player in ("model", "adversary"):
        cells.append(f"{statistics.median(asa[player]):.3f} ({max(asa[player]):.3f})")
    return " | ".join(cells)


def main() -> None:
    """Train without and with ASA, print the table."""
    arguments = parse_arguments()
    with one_line_errors("measure_asa_players.py"):
        warnings.simplefilter("ignore")  # fairseq and hydra give them by the dozen
        plain, asa = (blocks(arguments, with_asa) for with_asa in (False, True))
        print("| updates | loss without ASA | with | L_asa | masked | by layer", end="")
        print(" | model's norm (max) | adversary's |")
        print("| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |")
        for index, pair in enumerate(zip(plain, asa)):
            first = index * arguments.block + 1
            last = first + len(pair[1]["model"]) - 1
            print(f"| {first} - {last} | {row(*pair)} |")
        print(json.dumps({key: str(value) for key, value in vars(arguments).items()}))


if __name__ == "__main__":
    main()
