"""A tiny RoBERTa, tiny batches of each task kind, and plain-PyTorch stand-ins, for the tests."""

import contextlib
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.models.roberta import RobertaModel, base_architecture
from fairseq.tasks.masked_lm import MaskedLMTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.sentence_ranking import SentenceRankingTask

import adv_plugins  # noqa: F401
from adv_plugins.batch import NO_LABEL
from adv_plugins.models.token_head import register_token_head
from adv_plugins.tasks.token_classification import TokenClassificationTask

DROPOUT = 0.3
BATCH, CLASSES, CHOICES, WORDS = 3, 4, 5, 30
KINDS = ("classification", "regression", "multiple-choice", "masked-lm", "token-classification")
# Classification with one of the models that are trained from scratch.
TEXT_KINDS = ("bilstm", "text_cnn", "text_han")
ALL_KINDS = (*KINDS, *TEXT_KINDS)
LABELS = ["O", "B-fox", "I-fox", "B-hen"]


def dictionary():
    """30 words and fairseq's specials."""
    words = Dictionary()
    for index in range(WORDS):
        words.add_symbol(f"w{index}")
    words.add_symbol("<mask>")
    return words


class Task:
    """Just enough of the tasks: their type decides which base criterion is wrapped."""

    def __new__(cls, kind) -> Any:
        kind = "classification" if kind in TEXT_KINDS else kind
        stock = {
            "classification": SentencePredictionTask,
            "regression": SentencePredictionTask,
            "multiple-choice": SentenceRankingTask,
            "masked-lm": MaskedLMTask,
            "token-classification": TokenClassificationTask,
        }[kind]
        task = stock.__new__(stock)
        words = dictionary()
        task.dictionary = words
        task.args = SimpleNamespace(num_classes=CHOICES)
        task.cfg = task.args
        if kind == "token-classification":
            task.label_dictionary = Dictionary()
            for label in LABELS:
                task.label_dictionary.add_symbol(label)
        return task


def model_args(**changes):
    """Arguments of a two-layer RoBERTa whose activation works in float64."""
    values = dict(
        encoder_layers=2,
        encoder_embed_dim=8,
        encoder_ffn_embed_dim=16,
        encoder_attention_heads=2,
        dropout=0.0,
        attention_dropout=0.0,
        pooler_dropout=0.0,
        max_positions=32,
        tokens_per_sample=32,
        activation_fn="gelu_accurate",
    )
    args = Namespace(**{**values, **changes})
    base_architecture(args)
    return args


def model(kind, model_class=RobertaModel, double=True, seed=1, **changes):
    """A model in training mode with the head that ``kind`` needs; weights large enough to matter."""
    if kind in TEXT_KINDS:
        return text_model(kind, double, seed, **changes)
    torch.manual_seed(seed)
    built = model_class.build_model(model_args(**changes), Task(kind))
    classes = {"classification": CLASSES, "regression": 1, "multiple-choice": 1}.get(kind)
    if classes:
        built.register_classification_head("sentence_classification_head", num_classes=classes)
    if kind == "token-classification":
        register_token_head(built, "sentence_classification_head", CLASSES)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        embeddings = built.encoder.sentence_encoder
        for table in (embeddings.embed_tokens, embeddings.embed_positions):
            table.weight[table.padding_idx].zero_()
    return (built.double() if double else built).train()


def text_model(arch, double=True, seed=1, dropout=0.0, **changes):
    """One of ``TEXT_KINDS`` in the same way; ``dropout`` is that of the word embeddings, too."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = dict(encoder_embed_dim=8, encoder_hidden_size=5, encoder_layers=2)
    sizes.update(kernel_sizes="2,3,7", kernel_maps=4, embedding_dropout=dropout)
    others = ("activation_dropout", "attention_dropout", "pooler_dropout")  # of RoBERTa alone
    own = {name: value for name, value in changes.items() if name not in others}
    args = Namespace(**{**sizes, "dropout": dropout, **own})
    ARCH_CONFIG_REGISTRY[arch](args)
    built = ARCH_MODEL_REGISTRY[arch].build_model(args, SimpleNamespace(source_dictionary=dictionary()))
    built.register_classification_head("sentence_classification_head", num_classes=CLASSES)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.5)
        table = built.encoder.sentence_encoder.embed_tokens
        table.weight[table.padding_idx].zero_()
    return (built.double() if double else built).train()


def tokens(generator, lengths, pad=1):
    """(B, T) ids with right padding; words repeat within and across sentences."""
    rows = torch.full((len(lengths), max(lengths)), pad)
    for row, length in zip(rows, lengths):
        row[:length] = torch.randint(4, 4 + WORDS // 2, (length,), generator=generator)
        row[0] = 0
        row[length - 1] = 2
    return rows


def sample(kind, seed=1, lengths=(12, 5, 10)):
    """A batch of ``kind`` with padding."""
    kind = "classification" if kind in TEXT_KINDS else kind
    generator = torch.Generator().manual_seed(seed)
    batch = len(lengths)

    def net_input(these):
        return {
            "src_tokens": tokens(generator, these),
            "src_lengths": torch.tensor(these),
        }

    made = {"id": torch.arange(batch), "nsentences": batch, "ntokens": sum(lengths)}
    if kind == "multiple-choice":
        for choice in range(CHOICES):
            made[f"net_input{choice + 1}"] = net_input([n - choice % 3 for n in lengths])
        made["target"] = torch.randint(CHOICES, (batch,), generator=generator)
        return made
    made["net_input"] = net_input(lengths)
    if kind == "classification":
        made["target"] = torch.randint(CLASSES, (batch, 1), generator=generator)
    elif kind == "regression":
        made["target"] = torch.rand(batch, generator=generator, dtype=torch.float64)
    elif kind == "token-classification":
        source = made["net_input"]["src_tokens"]
        classes = torch.randint(CLASSES, source.shape, generator=generator)
        continues = torch.rand(source.shape, generator=generator).lt(0.3)
        made["target"] = classes.masked_fill(continues | source.lt(4), NO_LABEL)
    else:
        source = made["net_input"]["src_tokens"]
        chosen = torch.rand(source.shape, generator=generator).lt(0.4) & source.gt(3)
        chosen[:, 1] = True
        made["target"] = torch.where(chosen, source, torch.ones_like(source))
        made["net_input"]["src_tokens"] = source.masked_fill(chosen, len(dictionary()) - 1)
    return made


def gradients(model):
    """Name -> gradient, zeros for parameters without one."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def logits_and_loss(kind, model, sample):
    """The pass f(.) and its summed cross entropy (squared error), written without any criterion."""
    head = "sentence_classification_head"
    if kind == "multiple-choice":
        scores = [
            model(sample[f"net_input{c + 1}"]["src_tokens"], classification_head_name=head)[0]
            for c in range(CHOICES)
        ]
        logits = torch.cat(scores, dim=1)
    elif kind == "masked-lm":
        logits = model(sample["net_input"]["src_tokens"])[0][sample["target"].ne(1)]
        target = sample["target"][sample["target"].ne(1)]
        return logits, -logits.log_softmax(-1).gather(1, target[:, None]).sum()
    else:
        logits = model(
            sample["net_input"]["src_tokens"], features_only=True, classification_head_name=head
        )[0]
    if kind == "token-classification":
        labelled = [
            (b, t)
            for b, row in enumerate(sample["target"].tolist())
            for t, label in enumerate(row)
            if label >= 0
        ]
        logits = torch.stack([logits[place] for place in labelled])
        target = torch.stack([sample["target"][place] for place in labelled])
        return logits, -logits.log_softmax(-1).gather(1, target[:, None]).sum()
    if kind == "regression":
        return logits, (logits.view(-1) - sample["target"]).pow(2).sum()
    return logits, -logits.log_softmax(-1).gather(1, sample["target"].view(-1, 1)).sum()


def config(name, **options):
    """The options of a registered criterion."""
    dataclass = CRITERION_DATACLASS_REGISTRY[name]
    outside = {"tpu": False} if "tpu" in dataclass.__dataclass_fields__ else {}
    return dataclass(**outside, **options)


def criterion(name, kind, **options):
    """A registered criterion for ``kind``, in training mode."""
    if kind == "regression":
        options["regression_target"] = True
    return CRITERION_REGISTRY[name].build_criterion(config(name, **options), Task(kind)).train()


class Masks:
    """Dropout masks chosen by (pass, call): the same for one large batch and for passes one by one.

    Put it in the place of ``torch.nn.functional.dropout``. A batch of several passes gets their masks
    side by side along its batch dimension; a batch not yet doubled gets the first pass's.
    """

    def __init__(self):
        self.begin([0])

    def begin(self, passes, shared=lambda call: False):
        """``shared(call)`` says which calls of the pass use the masks of pass 0."""
        self.passes, self.shared, self.call = passes, shared, 0

    def __call__(self, x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        sizes = {len(self.passes) * BATCH: self.passes, BATCH: self.passes[:1]}
        dimension = next(d for d in range(x.dim()) if x.size(d) in sizes)
        shape = list(x.shape)
        shape[dimension] = BATCH
        masks = []
        for index in sizes[x.size(dimension)]:
            index = 0 if self.shared(self.call) else index
            generator = torch.Generator().manual_seed(1000 * index + self.call)
            masks.append(torch.rand(shape, generator=generator).ge(p))
        self.call += 1
        return x * torch.cat(masks, dim=dimension) / (1 - p)


def divergence(name, kind, p, q):
    """The options of appendix C, written out."""
    if kind == "regression":
        return ((p - q) ** 2).sum()
    p, q = p.softmax(-1), q.softmax(-1)
    m = (p + q) / 2
    return {
        "bi-kl": lambda: 0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()),
        "js": lambda: 0.5 * ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()),
        "kl": lambda: (p * (p / q).log()).sum(),
        "ce": lambda: -(p * q.log()).sum(),
        "mse": lambda: ((p - q) ** 2).mean(-1).sum(),
        "mae": lambda: (p - q).abs().mean(-1).sum(),
    }[name]()


@contextlib.contextmanager
def hooked(module, hook):
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def assert_same_gradients(ours, reference):
    for name, expected in reference.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-9, atol=1e-11, msg=name)
    assert any(g.abs().max() > 1e-3 for g in reference.values())


def flops(criterion, model, sample):
    """Floating-point operations of one forward and backward."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        criterion(model, sample)[0].backward()
    return counter.get_total_flops()


def to_device(sample, device):
    """A batch on another device."""
    if isinstance(sample, dict):
        return {key: to_device(value, device) for key, value in sample.items()}
    return sample.to(device) if torch.is_tensor(sample) else sample
