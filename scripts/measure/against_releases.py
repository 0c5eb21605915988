"""The rivals beside their authors' own released code: value and gradient on one batch, the same model.

    git clone https://github.com/zhuchen03/FreeLB && git clone https://github.com/dropreg/R-Drop
    git clone https://github.com/namisan/mt-dnn && git clone https://github.com/facebookresearch/fairseq
    python scripts/measure/against_releases.py --freelb FreeLB --r-drop R-Drop --mt-dnn mt-dnn \
        --fairseq fairseq

Of each release the function that computes an update is read from its file and run, on a tiny RoBERTa in
float64 without dropout, from the same random start, with its options as ours are named. The table has
both objectives and, for the gradients of all parameters, the cosine and the ratio of their lengths. A
release that is not given is left out. Where a row is not 1, the criterion's docstring says why.
"""

from __future__ import annotations

import argparse
import ast
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fairseq_compat

fairseq_compat.install()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY  # noqa: E402
from fairseq.modules import FairseqDropout  # noqa: E402
from fairseq.tasks.sentence_prediction import SentencePredictionTask  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import adv_plugins  # noqa: E402, F401
from adv_plugins.perturbation import perturbed  # noqa: E402
from adv_plugins_cli.command import UserError, one_line_errors  # noqa: E402
from adv_plugins_cli.recipes.update_times import make_sample  # noqa: E402
from synthetic import configure, make_dictionary  # noqa: E402

NOISE = 0.5  # of R3F: large, to be seen
HEAD = "sentence_classification_head"
STEPS, STEP_SIZE, EPS, INIT_EPS = 3, 0.1, 0.2, 0.15
SIZES = (
    "--encoder-layers 2 --encoder-embed-dim 16 --encoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
    "--dropout 0 --attention-dropout 0 --pooler-dropout 0 --activation-fn gelu_accurate"
)


def functions(path: Path, *names: str, **known: Any) -> list[Callable[..., Any]]:
    """Functions and classes of a file, without importing it and what it imports."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: is this the release?")
    tree = ast.parse(path.read_text("utf-8"))
    wanted: list[Any] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names
    ]
    if {node.name for node in wanted} != set(names):
        raise UserError(f"{path}: it has not all of {', '.join(names)}: is this the release?")
    space: dict[str, Any] = {"torch": torch, "F": F, "nn": nn, **known}
    exec(compile(ast.Module(wanted, type_ignores=[]), str(path), "exec"), space)
    return [space[name] for name in names]


class Setting:
    """A model, a batch, and both sides' draws."""

    def __init__(self) -> None:
        words = make_dictionary(40)
        cfg = configure("roberta", "fp32", f"--criterion sentence_prediction {SIZES}")
        self.task = SentencePredictionTask(cfg.task, words, words)
        torch.manual_seed(1)
        self.model = self.task.build_model(cfg.model).double().train()
        for weight in self.model.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.3)
        self.sample = make_sample(4, 10, len(words))
        self.ids = self.sample["net_input"]["src_tokens"]
        self.words_of = self.model.encoder.sentence_encoder.embed_tokens

    def logits(self, embeddings: Tensor | None = None) -> Tensor:
        """(B, C), of the words' own embeddings or of these instead."""
        delta = None if embeddings is None else embeddings - self.words_of(self.ids)
        with perturbed(self.words_of, [torch.zeros(()) if delta is None else delta]):
            options = dict(features_only=True, classification_head_name=HEAD)
            return self.model(self.ids, **options)[0]

    def loss(self, logits: Tensor, reduction: str = "sum") -> Tensor:
        """The cross entropy."""
        return F.cross_entropy(logits, self.sample["target"].view(-1), reduction=reduction)

    def gradients(self, run: Callable[[], Tensor]) -> tuple[float, Tensor]:
        """A value and the gradient of all parameters in one row."""
        self.model.zero_grad()
        torch.manual_seed(7)
        value = run()
        if value.requires_grad:
            value.backward()
        return float(value), torch.cat(
            [
                (torch.zeros_like(each) if each.grad is None else each.grad).flatten()
                for each in self.model.parameters()
            ]
        )

    def ours(self, name: str, **options: Any) -> tuple[float, Tensor]:
        """One of this project's criterions."""
        cfg = CRITERION_DATACLASS_REGISTRY[name](tpu=False, **options)
        criterion = CRITERION_REGISTRY[name].build_criterion(cfg, self.task).train()
        return self.gradients(lambda: criterion(self.model, self.sample)[0])


def freelb_release(setting: Setting, root: Path) -> Iterator[tuple[str, Any, Any]]:
    """FreeLB, PGD and YOPO, of FreeLB's fork of fairseq."""
    path = root / "fairseq-RoBERTa" / "fairseq" / "tasks" / "sentence_prediction.py"
    freelb, pgd, yopo, inner = functions(
        path, "freelb_train_step", "std_adv_train_step", "yopo_train_step", "yopo_inner_steps"
    )
    encoder = setting.model.encoder.sentence_encoder
    first: dict[str, Tensor] = {}

    def hamiltonian(p_var: Tensor, tokens: Tensor, token_embed: Tensor, init_dp: bool) -> Tensor:
        return (p_var * up_to_first_layer(setting, token_embed)).sum()

    class Body:
        """The names under which the fork has the encoder's parts."""

        embed_tokens = staticmethod(setting.words_of)
        Hamiltonian_fwd = staticmethod(hamiltonian)

        @property
        def first_layer_out(self) -> Tensor:
            return first["out"]

    def criterion(model: Any, sample: Any, token_embed: Any = None, **unused: Any) -> Any:
        def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
            output.retain_grad()
            first["out"] = output

        handle = encoder.layers[0].register_forward_hook(keep)
        loss = setting.loss(setting.logits(token_embed))
        handle.remove()
        return loss, 1, {}

    settings = dict(rand_init_mag=INIT_EPS, adv_begin_iter=0, norm_method="l2", adv_steps=STEPS - 1)
    settings |= dict(adv_lr=STEP_SIZE, grad_square=False, max_norm=EPS, no_sync_dp=False, reg_weight=0)
    task = types.SimpleNamespace(args=types.SimpleNamespace(**settings, yopo_steps=2))
    task.yopo_inner_steps = lambda *args, **kwargs: inner(task, *args, **kwargs)
    model = types.SimpleNamespace(
        decoder=types.SimpleNamespace(sentence_encoder=Body()), train=setting.model.train
    )
    optimizer = types.SimpleNamespace(backward=lambda loss: loss.backward())

    def run(step: Callable[..., Any]) -> Callable[[], Tensor]:
        return lambda: step(task, setting.sample, model, criterion, optimizer)[0].detach()

    options = dict(adv_steps=STEPS, adv_step_size=STEP_SIZE, adv_eps=EPS, adv_init_eps=INIT_EPS)
    yield "FreeLB", setting.gradients(run(freelb)), setting.ours("freelb_criterion", **options)
    yield "PGD", setting.gradients(run(pgd)), setting.ours("pgd_criterion", **options)
    options["adv_step_size"] = 2 * STEP_SIZE  # which ours divides by n
    yield (
        "YOPO",
        setting.gradients(run(yopo)),
        setting.ours("yopo_criterion", adv_inner_steps=2, **options),
    )


def up_to_first_layer(setting: Setting, embeddings: Tensor) -> Tensor:
    """(T, B, d) at the output of the first layer, by the encoder's parts."""
    encoder = setting.model.encoder.sentence_encoder
    x = embeddings * encoder.embed_scale + encoder.embed_positions(setting.ids)
    padding = setting.ids.eq(1)
    x = encoder.layernorm_embedding(x) * ~padding[..., None]
    return encoder.layers[0](x.transpose(0, 1), padding)


def rdrop_release(setting: Setting, root: Path) -> Iterator[tuple[str, Any, Any]]:
    """R-Drop's loss of a BERT classifier, with dropout: the same masks as our passes one by one."""
    path = root / "huggingface_transformer_src" / "src" / "transformers" / "models" / "bert"
    losses = dict(CrossEntropyLoss=nn.CrossEntropyLoss, MSELoss=nn.MSELoss)
    (loss,) = functions(path / "modeling_bert.py", "bert_kl", **losses)
    for module in setting.model.modules():
        if isinstance(module, FairseqDropout):
            module.p = 0.1
    own = types.SimpleNamespace(
        bert=lambda ids, **unused: (None, setting.logits()),
        dropout=lambda pooled: pooled,
        classifier=lambda pooled: pooled,
        num_labels=2,
    )
    rows = len(setting.ids)

    def theirs() -> Tensor:
        labels = setting.sample["target"].view(-1)
        return loss(own, setting.ids, *[None] * 5, labels, *[None] * 3)[0] * rows / 2

    # Their cross entropies are means, their divergence is the whole batch's.
    options = dict(consistency_weight=rows / 2, sequential_passes=True)
    name = "R-Drop, theirs x B / 2, ours with alpha = B / 2"
    yield name, setting.gradients(theirs), setting.ours("rdrop_criterion", **options)


def r3f_release(setting: Setting, root: Path) -> Iterator[tuple[str, Any, Any]]:
    """R3F of fairseq's examples: its noise goes to an argument that the encoder swallows."""
    path = root / "examples" / "rxf" / "rxf_src" / "sentence_prediction_r3f.py"
    (cls,) = functions(path, "SentencePredictionR3F", FairseqCriterion=nn.Module, **_registering())
    own = types.SimpleNamespace(
        classification_head_name=HEAD,
        r3f_lambda=0.5,
        noise_type="uniform",
        noise_sampler=torch.distributions.uniform.Uniform(low=-NOISE, high=NOISE),
        regression_target=False,
    )
    own._get_symm_kl = types.MethodType(cls._get_symm_kl, own)  # type: ignore[attr-defined]

    def theirs() -> Tensor:
        return cls.forward(own, setting.model, setting.sample)[0]  # type: ignore[attr-defined]

    options = dict(noise_eps=NOISE, consistency_weight=1.0)
    yield (
        "R3F, noise of 0.5 (theirs perturbs nothing)",
        setting.gradients(theirs),
        setting.ours("r3f_criterion", **options),
    )


def _registering() -> dict[str, Any]:
    import math

    from fairseq import utils

    return dict(register_criterion=lambda name: lambda cls: cls, math=math, utils=utils)


def smart_release(setting: Setting, root: Path) -> Iterator[tuple[str, Any, Any]]:
    """SMART of mt-dnn: its perturbation and its symmetric divergence, beside a summed cross entropy."""
    sys.path.insert(0, str(root))
    try:
        from mt_dnn.loss import SymKlCriterion
        from mt_dnn.perturbation import SmartPerturbation
    except ImportError as error:
        raise UserError(f"--mt-dnn {root}: {error}: is this the release?") from None
    finally:
        sys.path.remove(str(root))
    real = setting.ids.ne(1)
    smart = SmartPerturbation(
        k=1, step_size=1e-3, noise_var=1e-5, loss_map={0: SymKlCriterion()}, norm_p="inf"
    )

    def model(*args: Any) -> Tensor:
        return setting.words_of(setting.ids) if args[6] == 1 else setting.logits(args[7])

    def theirs() -> Tensor:
        logits = setting.logits()
        term, *_ = smart.forward(model, logits, setting.ids, None, real)
        return setting.loss(logits) + term * len(setting.ids)  # theirs is a mean

    options: dict[str, Any] = dict(adv_steps=1, adv_step_size=1e-3, adv_init_eps=1e-5)
    options |= dict(adv_projection="token", adv_eps=1.0, consistency_weight=1.0)
    yield "SMART", setting.gradients(theirs), setting.ours("smart_criterion", **options)


RELEASES = {
    "freelb": freelb_release,
    "r_drop": rdrop_release,
    "fairseq": r3f_release,
    "mt_dnn": smart_release,
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in RELEASES:
        parser.add_argument(
            "--" + name.replace("_", "-"), type=Path, metavar="FOLDER", help="its release"
        )
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    given = {name: root for name, root in vars(arguments).items() if root is not None}
    if not given:
        raise UserError(f"give a release: {' '.join('--' + n.replace('_', '-') for n in RELEASES)}")
    warnings.simplefilter("ignore")
    print("| | objective, theirs | ours | cosine of the gradients | ratio of their norms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, root in given.items():
        for method, (value, theirs), (own_value, ours) in RELEASES[name](Setting(), root):
            cosine = F.cosine_similarity(ours, theirs, dim=0).item()
            ratio = (ours.norm() / theirs.norm()).item()
            print(f"| {method} | {value:.6f} | {own_value:.6f} | {cosine:.6f} | {ratio:.4f} |")


def main() -> None:
    """Run the command line; a fault of the request is one line, not a traceback."""
    arguments = parse_arguments()
    with one_line_errors("against_releases.py"):
        run(arguments)


if __name__ == "__main__":
    main()
