"""A BERT as a DistilBERT: which class, which settings, and what BERT calls each of its tensors."""

from __future__ import annotations

from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from course_utils.errors import ModelError

_EPS = 1e-12
_DISTILBERT_CLASS = {
    BertModel: DistilBertModel,
    BertForMaskedLM: DistilBertForMaskedLM,
    BertForPreTraining: DistilBertForMaskedLM,  # next-sentence prediction is dropped
    BertForSequenceClassification: DistilBertForSequenceClassification,
    BertForTokenClassification: DistilBertForTokenClassification,
    BertForQuestionAnswering: DistilBertForQuestionAnswering,
    BertForMultipleChoice: DistilBertForMultipleChoice,
}
_NEW_CLASSIFIER = (DistilBertForSequenceClassification, DistilBertForMultipleChoice)
# What DistilBERT calls its modules, and what BERT calls the same ones.
_NAMES_IN_BERT = {
    "distilbert.": "bert.",
    "transformer.layer.": "encoder.layer.",
    "attention.q_lin.": "attention.self.query.",
    "attention.k_lin.": "attention.self.key.",
    "attention.v_lin.": "attention.self.value.",
    "attention.out_lin.": "attention.output.dense.",
    "sa_layer_norm.": "attention.output.LayerNorm.",
    "ffn.lin1.": "intermediate.dense.",
    "ffn.lin2.": "output.dense.",
    "output_layer_norm.": "output.LayerNorm.",
    "vocab_transform.": "cls.predictions.transform.dense.",
    "vocab_layer_norm.": "cls.predictions.transform.LayerNorm.",
    "vocab_projector.": "cls.predictions.decoder.",
}
_SETTINGS_IN_DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_act": "activation",
}
_NOT_IN_DISTILBERT = {
    *("type_vocab_size", "layer_norm_eps", "classifier_dropout"),
    *("is_decoder", "add_cross_attention", "use_cache"),
    *("model_type", "architectures", "transformers_version"),  # its own
}


def distilbert_class(teacher: PreTrainedModel) -> type[PreTrainedModel]:
    """DistilBERT's class with the head of `teacher`; raises `ModelError` where there is none.

    DistilBERT has BERT's layers but no token types and no pooler, so a head that reads from the
    pooler has no counterpart: next-sentence prediction is dropped, and a classifier of whole texts
    begins anew. Its LayerNorms have the epsilon of BERT, 1e-12, and no other.
    """
    kind = _DISTILBERT_CLASS.get(type(teacher))
    if kind is None:
        raise ModelError(
            f"DistilBERT has no class for a {type(teacher).__name__}.",
            do=f"Keep the token types, or take {', '.join(k.__name__ for k in _DISTILBERT_CLASS)}.",
        )
    if teacher.config.layer_norm_eps != _EPS:
        raise ModelError(
            f"DistilBERT's LayerNorm has an epsilon of {_EPS:g}, this teacher's has "
            f"{teacher.config.layer_norm_eps:g}.",
            do="Keep the token types: then the student has the teacher's class.",
        )
    return kind


def distilbert_config(config: PreTrainedConfig) -> DistilBertConfig:
    """DistilBERT's configuration with the sizes, dropout rates, labels and all else of a BERT's.

    The positions are those of the teacher, learned: no sinusoids, which would be frozen.
    """
    settings = {
        _SETTINGS_IN_DISTILBERT.get(name, name): value
        for name, value in config.to_dict().items()
        if name not in _NOT_IN_DISTILBERT
    }
    dropout = config.classifier_dropout
    return DistilBertConfig(
        **settings,
        seq_classif_dropout=config.hidden_dropout_prob if dropout is None else dropout,
        qa_dropout=0.0,  # BERT has no dropout there
        attn_implementation=config._attn_implementation,
    )


def name_in_bert(name: str, kind: type[PreTrainedModel]) -> str | None:
    """What BERT calls the tensor `name` of a DistilBERT of class `kind`; None if it has no such.

    The classifier of whole texts reads another layer than BERT's, ReLU(pre_classifier) and not
    tanh(pooler): both classes call it `classifier`, and none of the one's numbers fit the other.
    """
    if kind in _NEW_CLASSIFIER and name.startswith(("pre_classifier.", "classifier.")):
        return None
    for ours, theirs in _NAMES_IN_BERT.items():
        name = name.replace(ours, theirs)
    return name
