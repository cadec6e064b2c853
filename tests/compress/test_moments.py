"""Second moments are means over the tokens that a layer is given, whatever the batches."""

from __future__ import annotations

import copy

import pytest
import torch

from course_utils.compress.moments import input_moments, linears
from course_utils.data.encoding import EncodedTexts
from course_utils.errors import DataError, ModelError

FEED = "bert.encoder.layer.1.output.dense"
QUERY = "bert.encoder.layer.0.attention.self.query"


def moment(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


def test_the_linear_layers_are_those_of_the_encoder(model):
    names = list(linears(model))
    assert len(names) == 4 * 6
    assert QUERY in names
    assert FEED in names
    assert not [name for name in names if "pooler" in name or "classifier" in name]


def test_moments_are_means_over_the_tokens_and_not_the_padding(model, texts):
    names = [QUERY, "bert.encoder.layer.3.attention.self.value", "bert.pooler.dense"]
    inputs = {name: [] for name in names}
    for ids in texts.input_ids:
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for name, x in zip(names, (states[0][0], states[3][0], states[4][0, :1]), strict=True):
            inputs[name].append(x)  # (S, H)
    for batch_size in (1, 8):
        found = input_moments(model, texts, names=names, batch_size=batch_size)
        assert list(found) == names
        for name, x in inputs.items():
            expected = moment(torch.cat(x).double())
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-4)
    assert list(input_moments(model, texts)) == list(linears(model))


def test_dropout_has_no_place_in_the_moments(model, texts):
    training = copy.deepcopy(model).train()
    found = input_moments(training, texts, names=[FEED])[FEED]
    assert torch.equal(found, input_moments(model, texts, names=[FEED])[FEED])
    assert training.training


def test_what_the_model_cannot_read_is_refused(model, texts):
    with pytest.raises(ModelError, match="no linear layer 'pooler'"):
        input_moments(model, texts, names=["pooler"])
    with pytest.raises(DataError, match="id 120; the model has 120"):
        input_moments(model, EncodedTexts([[2, 120]]))
    with pytest.raises(DataError, match="2 of 3 texts have no token") as caught:
        input_moments(model, EncodedTexts([[2, 5], [], []]), batch_size=1)
    assert caught.value.where == "text 1, counted from 0"


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None])
def test_batches_of_no_text_are_refused(model, texts, batch_size):
    with pytest.raises(DataError, match=f"batch of {batch_size} texts"):
        input_moments(model, texts, batch_size=batch_size)
