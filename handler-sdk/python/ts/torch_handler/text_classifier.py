"""Classes of texts."""

from typing import Any, Dict, List, Tuple

import torch

from ts.handler_utils.text_utils import ngrams_iterator
from ts.handler_utils.timer import timed
from ts.utils.util import map_class_to_label

from .base_handler import require_captum, row_value
from .text_handler import TextHandler


class TextClassifier(TextHandler):
    """Answers a text with all classes and their probabilities. One text at a time: its model takes tokens and
    the offset where the text begins, as `torch.nn.EmbeddingBag` does."""

    ngrams = 2

    @timed
    def preprocess(self, data: List[Any]) -> Tuple[Any, List[str]]:
        """The indices of the text's tokens and n-grams, and the tokens and n-grams themselves."""
        if len(data) != 1:
            raise ValueError(
                "TextClassifier takes one request at a time, not {}: set batch size 1".format(len(data))
            )
        text = row_value(data[0])
        if isinstance(text, (bytes, bytearray)):
            text = text.decode("utf-8")
        text = self._remove_html_tags(text).lower()
        text = self._expand_contractions(text)
        text = self._remove_accented_characters(text)
        text = self._remove_punctuation(text)
        tokens = list(ngrams_iterator(self._tokenize(text), self.ngrams))
        indices = [self.token_index(token) for token in tokens]
        return torch.as_tensor(indices, dtype=torch.long, device=self.device), tokens

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        indices, _ = data
        offsets = torch.as_tensor([0], device=self.device)
        return super().inference(indices, offsets)

    @timed
    def postprocess(self, data: Any) -> List[Dict[str, float]]:
        probabilities = torch.nn.functional.softmax(data, dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, _: Any, target: Any = 0) -> List[Dict[str, Any]]:
        """How much each token and n-gram adds to the model's output for `target`."""
        indices, tokens = text_preprocess
        importances = self.summarize_attributions(self._attributions(indices, target))
        return [{"importances": importances.tolist(), "words": self.get_word_token(tokens)}]

    def _attributions(self, indices: Any, target: Any) -> Any:
        """Integrated gradients from an empty text to this one, with a row for each token."""
        captum = require_captum("explanations of texts")
        offsets = torch.as_tensor([0], device=self.device)
        layer = self.model.embedding
        if not isinstance(layer, torch.nn.EmbeddingBag):
            gradients = captum.LayerIntegratedGradients(self.model, layer)
            empty = torch.zeros_like(indices)
            return gradients.attribute(indices, empty, additional_forward_args=(offsets,), target=target)
        # A bag mixes its tokens, and with them their shares. So the tokens' embeddings are made the input,
        # and a hook puts their mix in the place of the bag's output.
        embeddings = layer.weight.detach()[indices].unsqueeze(0)
        gradients = captum.IntegratedGradients(
            lambda rows: _with_bag(self.model, layer, rows, indices, offsets)
        )
        return gradients.attribute(embeddings, torch.zeros_like(embeddings), target=target)


def _with_bag(model: Any, layer: Any, rows: Any, indices: Any, offsets: Any) -> Any:
    mix = {"mean": lambda: rows.mean(dim=1), "sum": lambda: rows.sum(dim=1), "max": lambda: rows.amax(dim=1)}
    hook = layer.register_forward_hook(lambda *_: mix[layer.mode]())
    try:
        return model(indices, offsets)
    finally:
        hook.remove()
