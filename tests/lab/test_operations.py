"""What a pipeline may say, and what each of its operations leaves behind."""

import pytest
import torch
from tiny import TEXTS
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
)

from course_utils.compress.pruning import encoder_parameters
from course_utils.data.encoding import encode
from course_utils.data.sources import find_model
from course_utils.errors import DataError, ModelError
from course_utils.lab.operations import (
    Model,
    Operation,
    apply,
    need_possible,
    parse,
    written,
)


@pytest.fixture
def start(tiny_teacher_folder):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    return Model(model, tokenizer)


def read_by(model):
    return encode(model.tokenizer, TEXTS, [k % 3 for k in range(len(TEXTS))], max_length=32)


def done(line, start):
    for operation in parse(line):
        start = apply(operation, start, read_by(start), read_by(start))
    return start


def logits(model):
    with torch.no_grad():
        texts = [torch.tensor([ids]) for ids in read_by(model).input_ids]
        return torch.cat([model.model.eval()(ids).logits for ids in texts])


def test_a_pipeline_is_read_as_it_is_written():
    line = "layers 3, trim 8000, prune 50, trim"
    with pytest.raises(DataError, match="trim stands twice"):
        parse(line)
    operations = parse("layers 3,  prune 50, trim, int8")
    assert operations == (
        Operation("layers", 3),
        Operation("prune", 50),
        Operation("trim"),
        Operation("int8"),
    )
    assert written(operations) == "layers 3, prune 50, trim, int8"
    assert [operation.is_learned for operation in operations] == [True, True, False, False]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no operation ''"),
        ("shrink 3", "no operation 'shrink'"),
        ("layers", "'layers' in 'layers' has no amount"),
        ("layers 0", "whole number from 1 to 24"),
        ("prune 100", "whole number from 1 to 99"),
        ("prune 0.5", "whole number from 1 to 99"),
        ("rank -3", "whole number from 1 to 99"),
        ("trim 10", "whole number from 1000"),
        ("prune 50 60", "has no amount that can be"),
        ("int8 8", "int8 has no amount"),
        ("int8, trim", "int8 is not the last"),
        ("int8, int4", "int8 is not the last"),
        ("prune 50, layers 2", "layers comes too late"),
        ("words 8, layers 2", "layers comes too late"),
    ],
)
def test_what_cannot_be_a_pipeline_is_refused_in_words(line, words):
    with pytest.raises(DataError, match=words):
        parse(line)


def test_every_operation_leaves_a_smaller_model_and_the_old_one_as_it_was(start):
    before = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}
    whole = encoder_parameters(start.model)
    assert done("layers 2", start).model.config.num_hidden_layers == 2
    assert encoder_parameters(done("prune 50", start).model) < 0.55 * whole
    assert encoder_parameters(done("rank 40", start).model) <= 0.6 * whole
    assert done("words 8", start).model.config.embedding_rank == 8
    after = start.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_trimming_changes_no_answer_to_texts_whose_words_are_all_kept(start):
    trimmed = done("trim", start)
    torch.testing.assert_close(logits(trimmed), logits(start))
    assert len(trimmed.tokenizer) == trimmed.model.config.vocab_size


def test_operations_follow_one_another_in_any_order_that_can_be(start):
    one, other = (
        done(line, start)
        for line in ("layers 2, prune 50, trim, words 8", "trim, layers 2, words 8, prune 50")
    )
    assert one.model.num_parameters() == other.model.num_parameters()
    for made in (one, other):
        assert logits(made).isfinite().all()


def test_more_layers_than_the_model_has(start):
    with pytest.raises(ModelError, match="4"):
        done("layers 9", start)


def test_heads_of_another_family_are_not_cut(start):
    with pytest.raises(ModelError, match="a distilbert cannot be cut"):
        need_possible([parse("layers 2, prune 50")], DistilBertConfig(), start.tokenizer)
    need_possible([parse("layers 2, int8")], DistilBertConfig(), start.tokenizer)


@pytest.mark.weights
@pytest.mark.parametrize("amount", [1000, 40_000])
def test_only_as_many_words_as_can_be_kept(amount):
    folder = find_model(say=lambda _: None).path
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ModelError, match="that can be kept are"):
        need_possible([parse(f"trim {amount}")], config, tokenizer)
    need_possible([parse("trim 2000"), parse("trim")], config, tokenizer)


@pytest.mark.weights
def test_trimming_to_a_number_keeps_that_many_words():
    folder = find_model(say=lambda _: None).path
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    start = Model(model, AutoTokenizer.from_pretrained(folder))
    trimmed = done("trim 8000", start)
    assert trimmed.model.config.vocab_size == len(trimmed.tokenizer) == 8000
    assert trimmed.model.config.max_position_embeddings == 128
    torch.testing.assert_close(logits(trimmed), logits(start))  # common words
