"""Which rank each layer gets: by a size that all are to fit in, or the energy that each keeps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

from course_utils.compress.moments import input_moments, linears
from course_utils.compress.pruning import encoder_parameters
from course_utils.compress.svd import break_even_rank, energy_rank, need_share, saves, spectrum
from course_utils.data.encoding import EncodedTexts
from course_utils.errors import ModelError
from course_utils.models.compact_bert import compact


def spectra(model: PreTrainedModel, *, texts: EncodedTexts | None = None) -> dict[str, Tensor]:
    """The `spectrum` of every linear layer of the encoder, with `texts` as their inputs meet it."""
    moments = input_moments(model, texts) if texts is not None else {}
    return {
        name: spectrum(layer.weight, moments.get(name)) for name, layer in linears(model).items()
    }


def ranks_for(
    model: PreTrainedModel, share: float, *, spectra: Mapping[str, Tensor] | None = None
) -> dict[str, int]:
    """Ranks, by layer, with which at most this share of the `encoder_parameters` is left.

    Biases and LayerNorms stay, and are counted. Without `spectra` every weight keeps the same share
    of its numbers. With those of `linears(model)`, the ranks are given out one by one to the layer
    where a rank holds the most of the layer's energy per parameter; so the sum of what all layers
    lose, each as a share of its own energy, is small. A layer that would have no fewer parameters
    is left whole, and is not among the ranks. Spectra with texts chose worse than the same share
    everywhere, on a MiniLM for SST-2: most of the energy of its outputs is in a few coordinates.

    Raises `ModelError` for a share not in (0, 1] or too small for rank 1, for spectra of another
    model, and for a model that cannot be made compact.
    """
    need_share(share)
    model = compact(model)
    shapes = {name: tuple(layer.weight.shape) for name, layer in linears(model).items()}
    weights = sum(m * n for m, n in shapes.values())
    total = encoder_parameters(model)
    room = share * total - (total - weights)
    even = {n: int(break_even_rank(*shape) * room / weights) for n, shape in shapes.items()}
    if min(even.values(), default=0) < 1:
        raise ModelError(
            f"No ranks leave the encoder {share:.1%} of its parameters.",
            do="Take a larger share, or a model that is not factorised yet.",
        )
    return even if spectra is None else _by_energy(shapes, spectra, room)


def ranks_by_share(
    layers: Mapping[str, nn.Linear], moments: Mapping[str, Tensor], share: float
) -> dict[str, int]:
    """The rank at which each layer keeps this share of its energy, where that saves something."""
    ranks = {
        name: energy_rank(spectrum(layer.weight, moments.get(name)), share)
        for name, layer in layers.items()
    }
    return {name: r for name, r in ranks.items() if saves(*layers[name].weight.shape, r) > 0}


def _by_energy(
    shapes: Mapping[str, tuple[int, int]], spectra: Mapping[str, Tensor], room: float
) -> dict[str, int]:
    """Ranks with at most `room` parameters in all: each goes where it holds most per parameter.

    Within a layer a rank never holds more than the one before, so to take the best next one is to
    take the best; only what is too little for one more rank is left.
    """
    if missing := shapes.keys() - spectra.keys():
        raise ModelError(
            f"There is no spectrum of {min(missing)}.", do="Take spectra(model) of the same model."
        )
    costs = {name: m + n for name, (m, n) in shapes.items()}
    ranks, room_left = dict.fromkeys(shapes, 1), room - sum(costs.values())
    energies = {name: spectra[name].double().square().cpu() for name in shapes}
    gains = [
        (gain, name)
        for name, energy in energies.items()
        for gain in (energy[1:] / energy.sum().clamp_min(1e-30) / costs[name]).tolist()
    ]
    for _, name in sorted(gains, reverse=True):
        if costs[name] <= room_left:
            ranks[name] += 1
            room_left -= costs[name]
    whole = {name for name, rank in ranks.items() if saves(*shapes[name], rank) <= 0}
    if not whole:
        return ranks
    others = {name: shape for name, shape in shapes.items() if name not in whole}
    return _by_energy(others, spectra, room - sum(m * n for m, n in (shapes[w] for w in whole)))
