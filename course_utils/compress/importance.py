"""How much each head and each feed-forward neuron matters: four answers, which differ.

A *part* here is a head or a neuron, with all the weights that would go with it: a head's rows of
query, key and value and its columns of the output; a neuron's row and its column.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from course_utils.compress.reading import batches, need_readable
from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill.losses import hard_loss, has_label
from course_utils.distill.trainer import Recipe, train
from course_utils.errors import DataError, ModelError
from course_utils.models.compact_bert import Factorised, layers_of


@dataclass(frozen=True)
class Importance:
    """A score for every head and every neuron, layer by layer; the higher, the rather it stays.

    `heads[i]` is (A,) and `neurons[i]` (F,), float32 on the CPU, for the A heads and F neurons of
    layer i. Only the order counts: scores of two kinds, or of heads and neurons, do not compare.
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def magnitude(model: PreTrainedModel) -> Importance:
    """The L2 norm of each part's weights, without its biases. No text is read.

    As Li et al. 2017 for filters, "Pruning filters for efficient ConvNets", section 3.1 (with L1).
    """
    squares = _sums(model, lambda linear: linear.weight.detach().float().square())
    return Importance(*(tuple(map(torch.sqrt, part)) for part in (squares.heads, squares.neurons)))


def by_chance(model: PreTrainedModel, seed: int) -> Importance:
    """Random numbers from 0 to 1, the same for the same seed: what other rankings have to beat."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [_counts(layer) for layer in layers_of(model)]
    heads, neurons = (
        tuple(torch.rand(n, generator=generator) for n in part) for part in zip(*sizes, strict=True)
    )
    return Importance(heads, neurons)


def taylor(model: PreTrainedModel, texts: EncodedTexts, *, batch_size: int = 32) -> Importance:
    """How much the loss would change, to first order and up or down, without each part.

    What a part adds is multiplied by a gate xi = 1; the score is the mean of |dL/dxi|, with L the
    loss of one text: the absolute sum, over tokens and coordinates, of activation times gradient.
    Michel et al. 2019, "Are sixteen heads really better than one?", eq. 2, without its scaling per
    layer; for neurons Molchanov et al. 2019, "Importance estimation for neural network pruning".
    Texts without a label have no say. The model is run in eval mode and left as it was. Raises
    `DataError` when no text has a label and for texts that the model cannot read, `ModelError` for
    what is not a classifier.
    """
    layers = layers_of(model)
    rows = has_label(texts.columns["labels"]).nonzero()[:, 0].tolist()
    if not rows:
        raise DataError("No text has a label, so there is no loss.", do="Give labelled texts.")
    if not hasattr(model, "classifier"):
        raise ModelError(f"A {type(model).__name__} has no classes.", do="Give a classifier.")
    need_readable(model, texts)
    totals = [torch.zeros(n) for layer in layers for n in _counts(layer)]
    collate = PadBatch(model.config.pad_token_id)
    with _evaluated(model), _gates(layers) as gates:
        for some in batches(rows, batch_size):
            batch = collate([texts[i] for i in some])
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            gates.clear()
            logits = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
            loss = hard_loss(logits.float(), batch["labels"]).sum()
            for total, slope in zip(totals, torch.autograd.grad(loss, gates), strict=True):
                total += slope.float().abs().sum(0).cpu()  # (B, n) -> (n,)
    means = [total / len(rows) for total in totals]
    return Importance(tuple(means[::2]), tuple(means[1::2]))


def movement(
    model: PreTrainedModel, texts: EncodedTexts, recipe: Recipe, *, progress: bool = True
) -> Importance:
    """Whether each part's weights grew or shrank while a copy of the model was fine-tuned.

    A weight's score is S = -sum over steps of w · dL/dw: positive where training drives the weight
    away from zero. A part has the sum over its weights. Sanh et al. 2020, "Movement pruning",
    section 4, but with all weights in use throughout. Raises what `train` raises.
    """
    student = copy.deepcopy(model).float().requires_grad_(True)
    scores = [torch.zeros(n) for layer in layers_of(student) for n in _counts(layer)]

    class Listener(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            step = _sums(student, lambda linear: -linear.weight.detach() * linear.weight.grad)
            pairs = zip(step.heads, step.neurons, strict=True)
            for score, moved in zip(scores, (m for pair in pairs for m in pair), strict=True):
                score += moved

    train(student, texts, recipe, progress=progress, callbacks=[Listener()])
    return Importance(tuple(scores[::2]), tuple(scores[1::2]))


def _sums(model: PreTrainedModel, value: Callable[[nn.Linear], Tensor]) -> Importance:
    """The sum over each part's weights of `value`, which is as large as the weight it is of."""
    heads, neurons = [], []
    for layer in layers_of(model):
        attention, (n_heads, _) = layer.attention.self, _counts(layer)
        total = value(_inner(layer.attention.output.dense)).sum(0)  # (A · head size,)
        for linear in (attention.query, attention.key, attention.value):
            total = total + value(_outer(linear)).sum(1)
        heads.append(total.view(n_heads, -1).sum(1).cpu())
        rows, columns = _outer(layer.intermediate.dense), _inner(layer.output.dense)
        neurons.append((value(rows).sum(1) + value(columns).sum(0)).cpu())
    return Importance(tuple(heads), tuple(neurons))


def _outer(linear: nn.Module) -> nn.Linear:
    """The layer, or factor of it, that has a row for each of its outputs."""
    return linear.up if isinstance(linear, Factorised) else linear


def _inner(linear: nn.Module) -> nn.Linear:
    """The layer, or factor of it, that has a column for each of its inputs."""
    return linear.down if isinstance(linear, Factorised) else linear


def _counts(layer: nn.Module) -> tuple[int, int]:
    """How many heads and how many neurons the layer has."""
    return layer.attention.self.num_attention_heads, layer.intermediate.dense.out_features


@contextmanager
def _evaluated(model: PreTrainedModel) -> Iterator[None]:
    """Nothing; the model is in eval mode inside the block, and in its own after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _gates(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """The gates of the last forward pass, all 1: (B, A) and (B, F) of each layer in turn."""
    gates, handles = [], []

    def gate(n: int) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
        def multiply(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
            (x,) = inputs  # (B, S, n · d): n parts of d coordinates
            xi = torch.ones(len(x), n, dtype=x.dtype, device=x.device, requires_grad=True)
            gates.append(xi)
            return (x.unflatten(-1, (n, -1)) * xi[:, None, :, None]).flatten(-2)

        return multiply

    for layer in layers:
        n_heads, n_neurons = _counts(layer)
        for linear, n in ((layer.attention.output.dense, n_heads), (layer.output.dense, n_neurons)):
            handles.append(linear.register_forward_pre_hook(gate(n)))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()
