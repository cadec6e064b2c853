"""Positions, embeddings, blocks and the encoder against loops and PyTorch's own, with gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.errors import DataError, ModelError
from course_utils.models.attention import causal_mask, padding_mask
from course_utils.models.encoder import (
    Embeddings,
    Encoder,
    EncoderBlock,
    FeedForward,
    sinusoidal_positions,
)

B, A, S, H, WIDE = 2, 3, 5, 12, 20
EPS = 1e-3  # large enough that a block that ignores it is seen
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
PADDING = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
MASKS = {
    "no mask": None,
    "padding": padding_mask(PADDING),
    "causal": causal_mask(S),
    "causal and padding": causal_mask(S) & padding_mask(PADDING),
    "a text of padding": padding_mask(PADDING * torch.tensor([[1], [0]])),
    "one row sees nothing": causal_mask(S) & (torch.arange(S) != 2)[:, None],
}
with_masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
with_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
with_norms = pytest.mark.parametrize("pre_norm", [False, True], ids=["post-LN", "pre-LN"])


def numbers(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.manual_seed(seed), dtype=torch.float64).to(dtype)


def same(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[expected.dtype])


def gradients(output: torch.Tensor, inputs) -> tuple[torch.Tensor, ...]:
    """The gradients of a sum in which every number of the output has a weight of its own."""
    loss = (output * numbers(*output.shape, seed=9, dtype=output.dtype)).sum()
    return torch.autograd.grad(loss, list(inputs))


def randomise(module: nn.Module) -> None:
    """Gives every parameter random values: no bias is zero, no norm is one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn_like(parameter) / H**0.5
            parameter.copy_(noise if parameter.dim() > 1 else parameter + 0.3 * noise)


def copied(theirs: nn.TransformerEncoderLayer) -> EncoderBlock:
    """Our block with the weights of PyTorch's."""
    ours = EncoderBlock(H, A, WIDE, norm_eps=EPS, pre_norm=theirs.norm_first)
    ours = ours.to(theirs.linear1.weight.dtype)
    pairs = [
        (ours.attention.output, theirs.self_attn.out_proj),
        (ours.attention_norm, theirs.norm1),
        (ours.feed_forward.expand, theirs.linear1),
        (ours.feed_forward.contract, theirs.linear2),
        (ours.feed_forward_norm, theirs.norm2),
    ]
    parts = (ours.attention.query, ours.attention.key, ours.attention.value)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            stacked = getattr(theirs.self_attn, f"in_proj_{kind}")
            for part, values in zip(parts, stacked.chunk(3), strict=True):
                getattr(part, kind).copy_(values)
            for mine, other in pairs:
                getattr(mine, kind).copy_(getattr(other, kind))
    return ours


def in_pytorchs_order(block: EncoderBlock, found: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Our gradients in the order of the parameters of PyTorch's block."""
    stacked = [
        torch.cat([found[f"attention.{part}.{kind}"] for part in ("query", "key", "value")])
        for kind in ("weight", "bias")
    ]
    parts = ("attention.output", "feed_forward.expand", "feed_forward.contract")
    parts += ("attention_norm", "feed_forward_norm")
    return stacked + [found[f"{part}.{kind}"] for part in parts for kind in ("weight", "bias")]


def pytorchs_layer(pre_norm: bool, dtype) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        H, A, WIDE, 0.0, "gelu", EPS, batch_first=True, norm_first=pre_norm
    )
    randomise(layer)
    return layer.to(dtype)


def pytorchs_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else ~mask.expand(B, A, S, S).flatten(0, 1)


@with_masks
@with_norms
@with_dtypes
def test_a_block_equals_pytorchs_in_value_and_gradient(dtype, pre_norm, mask):
    theirs = pytorchs_layer(pre_norm, dtype)
    ours = copied(theirs)
    hidden = numbers(B, S, H, dtype=dtype).requires_grad_()
    found, weights = ours(hidden, mask=mask)
    expected = theirs(hidden, src_mask=pytorchs_mask(mask))
    assert weights.shape == (B, A, S, S)
    same(found, expected)

    names, parameters = zip(*ours.named_parameters(), strict=True)
    of_hidden, *of_ours = gradients(found, [hidden, *parameters])
    expected = gradients(expected, [hidden, *theirs.parameters()])
    of_ours = in_pytorchs_order(ours, dict(zip(names, of_ours, strict=True)))
    for one, other in zip([of_hidden, *of_ours], expected, strict=True):
        assert one.isfinite().all()
        same(one, other)


@with_masks
@with_norms
def test_an_encoder_equals_pytorchs_at_every_layer(pre_norm, mask):
    layers = []
    for _ in range(3):
        layers.append(pytorchs_layer(pre_norm, torch.float64))
        with torch.no_grad():  # no two layers alike
            for parameter in layers[-1].parameters():
                parameter.mul_(1 + len(layers) / 10)
    ours = Encoder(3, H, A, WIDE, norm_eps=EPS, pre_norm=pre_norm).double()
    for block, layer in zip(ours.blocks, layers, strict=True):
        block.load_state_dict(copied(layer).state_dict())
    randomise(ours.final_norm)

    hidden = numbers(B, S, H, dtype=torch.float64)
    hidden_states, attentions = ours(hidden, mask=mask)
    assert [len(hidden_states), len(attentions)] == [4, 3]
    assert hidden_states[0] is hidden
    for k, layer in enumerate(layers):
        same(attentions[k], ours.blocks[k](hidden, mask=mask)[1])
        hidden = layer(hidden, src_mask=pytorchs_mask(mask))
        if pre_norm and layer is layers[-1]:
            hidden = F.layer_norm(hidden, (H,), ours.final_norm.weight, ours.final_norm.bias, EPS)
        same(hidden_states[k + 1], hidden)


def test_only_a_pre_ln_encoder_has_a_last_norm():
    names = {
        pre: {name for name, _ in Encoder(1, H, A, WIDE, pre_norm=pre).named_parameters()}
        for pre in (False, True)
    }
    assert names[True] - names[False] == {"final_norm.weight", "final_norm.bias"}


def test_feed_forward_uses_the_exact_gelu_and_sees_one_position_at_a_time():
    feed_forward = FeedForward(H, WIDE).double()
    hidden = numbers(B, S, H, dtype=torch.float64)
    between = feed_forward.expand(hidden)
    exact = between * (1 + torch.erf(between / math.sqrt(2))) / 2
    same(feed_forward(hidden), feed_forward.contract(exact))
    same(feed_forward(hidden[:, 2:3]), feed_forward(hidden)[:, 2:3])


def test_the_usual_epsilon_is_berts():
    block = EncoderBlock(H, A, WIDE)
    assert block.attention_norm.eps == block.feed_forward_norm.eps == 1e-12


@with_norms
def test_dropout_acts_on_both_branches_while_training_only(pre_norm):
    block = EncoderBlock(H, A, WIDE, dropout=1.0, pre_norm=pre_norm)
    hidden = numbers(B, S, H)
    alone = hidden if pre_norm else block.feed_forward_norm(block.attention_norm(hidden))
    same(block(hidden)[0], alone)  # nothing that a branch adds comes through
    assert not torch.allclose(block.eval()(hidden)[0], alone)
    assert block.attention.dropout == 1.0


@with_norms
def test_without_positions_shuffled_words_give_shuffled_states(pre_norm):
    encoder = Encoder(2, H, A, WIDE, pre_norm=pre_norm).double()
    hidden, order = numbers(B, S, H, dtype=torch.float64), torch.tensor([3, 0, 4, 2, 1])
    same(encoder(hidden[:, order])[0][-1], encoder(hidden)[0][-1][:, order])


def test_padding_changes_nothing_for_the_tokens():
    encoder = Encoder(2, H, A, WIDE).double()
    hidden = numbers(B, S, H, dtype=torch.float64)
    short, _ = encoder(hidden[1:, :2])
    long, attentions = encoder(hidden, mask=padding_mask(PADDING))
    same(long[-1][1:, :2], short[-1])
    assert (attentions[-1][1, :, :, 2:] == 0).all()


# Positions and embeddings


@pytest.mark.parametrize(("length", "size"), [(1, 2), (7, 6), (512, 8)])
def test_sinusoidal_positions_equal_the_formula(length, size):
    found = sinusoidal_positions(length, size)
    assert (found.shape, found.dtype) == ((length, size), torch.float32)
    for position in range(0, length, 5):
        for i in range(size // 2):
            angle = position / 10000 ** (2 * i / size)
            assert found[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def embeddings() -> Embeddings:
    made = Embeddings(10, 6, 2, H, padding_id=0, norm_eps=EPS).double()
    randomise(made)
    return made


IDS = torch.tensor([[1, 9, 0], [4, 4, 2]])
TYPES = torch.tensor([[0, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("types", [None, TYPES], ids=["no types", "types"])
def test_embeddings_are_the_norm_of_a_sum_of_three(types):
    made = embeddings()
    found = made(IDS, types)
    for b in range(2):
        for s in range(3):
            kind = 0 if types is None else types[b, s]
            total = made.words.weight[IDS[b, s]] + made.positions.weight[s]
            total = total + made.types.weight[kind]
            centred = total - total.mean()
            scaled = centred / (centred.square().mean() + EPS).sqrt()
            same(found[b, s], scaled * made.norm.weight + made.norm.bias)


def test_the_vector_of_padding_is_not_trained():
    made = embeddings()
    (gradient,) = gradients(made(IDS), [made.words.weight])
    assert (gradient[0] == 0).all()
    assert (gradient[[1, 2, 4, 9]] != 0).any(-1).all()


def test_embeddings_drop_out_while_training_only():
    made = Embeddings(10, 6, 2, H, dropout=1.0)
    assert (made(IDS) == 0).all()
    assert (made.eval()(IDS) != 0).any()


def test_an_encoder_compiles_and_needs_no_values_on_the_meta_device():
    encoder = Encoder(2, H, A, WIDE)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    mask = padding_mask(PADDING)
    same(compiled(numbers(B, S, H), mask=mask)[0][-1], encoder(numbers(B, S, H), mask=mask)[0][-1])
    assert embeddings().to("meta")(IDS.to("meta"), TYPES.to("meta")).shape == (2, 3, H)


# What is refused


@pytest.mark.parametrize(("length", "size"), [(4, 7), (4, 0), (0, 8), (-1, 8)])
def test_positions_that_do_not_exist_are_refused(length, size):
    with pytest.raises(ModelError, match=f"length {length} and hidden size {size}") as error:
        sinusoidal_positions(length, size)
    assert "even hidden size" in error.value.do


REFUSED = {
    "a list": ([[1, 2]], None, "input_ids is a list, expected a tensor"),
    "one text alone": (IDS[0], None, "input_ids has 1 axes, expected 2"),
    "nothing": (IDS[:, :0], None, r"input_ids is empty: its shape is \(2, 0\)"),
    "floats": (IDS.float(), None, "input_ids is of torch.float32, expected whole numbers"),
    "yes and no": (IDS.bool(), None, "input_ids is of torch.bool"),
    "too long": (IDS.repeat(1, 3), None, "9 tokens long, the model has positions for 6"),
    "outside": (IDS + 1, None, r"value 10, expected 0 to 9\.\n.*text 0, token 1"),
    "negative": (IDS - 5, None, r"value -4, expected 0 to 9\.\n.*text 0, token 0"),
    "types of another length": (
        IDS,
        TYPES[:, :2],
        "Axis 1 of token_type_ids is 2 long, expected 3",
    ),
    "types of another batch": (IDS, TYPES[:1], "Axis 0 of token_type_ids is 1 long, expected 2"),
    "types are floats": (IDS, TYPES.float(), "token_type_ids is of torch.float32"),
    "a third type": (IDS, TYPES + 1, r"token_type_ids has the value 2, .*\n.*text 0, token 2"),
    "a negative type": (IDS, -TYPES, r"token_type_ids has the value -1, expected 0 to 1"),
}


@pytest.mark.parametrize(("ids", "types", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_ids_without_a_vector_are_refused_in_words(ids, types, words):
    with pytest.raises(DataError, match=words):
        embeddings()(ids, types)


@with_norms
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((B, S, H + 1), "Axis 2 of hidden is 13 long, expected 12"),
        ((S, H), "hidden has 2 axes, expected 3"),
    ],
    ids=["another hidden size", "no batch"],
)
def test_hidden_states_of_another_shape_are_refused(shape, words, pre_norm):
    with pytest.raises(DataError, match=words):
        Encoder(1, H, A, WIDE, pre_norm=pre_norm)(numbers(*shape))


def test_heads_that_do_not_divide_the_hidden_size_are_refused():
    with pytest.raises(ModelError, match="hidden size of 12 cannot be cut into 5 heads"):
        Encoder(1, 12, 5, WIDE)
