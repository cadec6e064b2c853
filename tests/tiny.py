"""A tiny BERT classifier with random weights, and a tokenizer that splits words."""

from __future__ import annotations

from pathlib import Path

TEXTS = [
    "The array holds the sum of every row.",
    "A tensor moves to the device.",
    "Plot the line.",
    "Returns a new frame, sorted by the labels of its index, with missing values first.",
    "The estimator fits the data and predicts a class for every sample it has not seen.",
    "Compute the inverse of a matrix",
    "unseen quixotic words?",
    "the",
]


def write_classifier(folder: Path, **changes) -> Path:
    """The folder, with a random BERT classifier and a WordPiece tokenizer made from `TEXTS`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    labels = ["numpy", "torch", "pandas"]
    config = {
        "vocab_size": 120,
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: k for k, label in enumerate(labels)},
        "initializer_range": 0.2,
    } | changes
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**config)).eval()
    with torch.no_grad():  # biases that are not zero, norms that are not one: nothing cancels out
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        some = model(torch.randint(5, config["vocab_size"], (64, 12))).logits
        model.classifier.weight /= some.std(0)[:, None]  # so that every class is chosen at times
        model.classifier.bias.sub_(some.mean(0)).div_(some.std(0))
    model.save_pretrained(folder)
    write_tokenizer(folder, config["vocab_size"])
    return folder


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Nothing; a BERT tokenizer of at most `vocab_size` pieces, learned from `TEXTS`, is saved."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        TEXTS, WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", special.index("[SEP]")), ("[CLS]", special.index("[CLS]"))
    )
    tokenizer.decoder = decoders.WordPiece()
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **names
    ).save_pretrained(folder)
