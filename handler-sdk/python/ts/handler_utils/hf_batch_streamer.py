"""A streamer for `transformers` that yields text for all sequences of a batch."""

from queue import Queue
from typing import Any, List, Optional


class _Sequence:
    """The tokens of one sequence, and how much of their text is out."""

    def __init__(self) -> None:
        self.tokens: List[int] = []
        self.shown = 0


class TextIteratorStreamerBatch:
    """Given to `generate(streamer=…)` in one thread and iterated in another: each step is a list of new text.

    Text comes out in whole words, because later tokens may change the letters of a word that isn't finished.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: Optional[float] = None,
        **decode_kwargs: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.skip_prompt = skip_prompt
        self.timeout = timeout
        self.decode_kwargs = decode_kwargs
        self._sequences = [_Sequence() for _ in range(batch_size)]
        self._texts: "Queue[Optional[List[str]]]" = Queue()
        self._prompt_is_next = True

    def put(self, value: Any) -> None:
        """Takes the prompts first, with a row for each sequence, and then one token for each sequence."""
        rows = value.tolist() if hasattr(value, "tolist") else list(value)
        rows = [row if isinstance(row, list) else [row] for row in rows]
        if len(rows) != self.batch_size:
            raise ValueError("{} sequences given to a streamer of {}".format(len(rows), self.batch_size))
        is_prompt, self._prompt_is_next = self._prompt_is_next, False
        if is_prompt and self.skip_prompt:
            return
        self._texts.put([self._advance(sequence, row) for sequence, row in zip(self._sequences, rows)])

    def end(self) -> None:
        """Lets out what was held back, and ends the iteration."""
        self._texts.put([self._rest(sequence) for sequence in self._sequences])
        self._texts.put(None)
        self._prompt_is_next = True

    def __iter__(self) -> "TextIteratorStreamerBatch":
        return self

    def __next__(self) -> List[str]:
        texts = self._texts.get(timeout=self.timeout)
        if texts is None:
            raise StopIteration
        return texts

    def _advance(self, sequence: _Sequence, tokens: List[int]) -> str:
        sequence.tokens.extend(tokens)
        text = self.tokenizer.decode(sequence.tokens, **self.decode_kwargs)
        if text.endswith("\n"):
            # A line's end ends the last word too; starting anew keeps decoding short.
            new = text[sequence.shown :]
            sequence.tokens, sequence.shown = [], 0
            return new
        end = len(text) if text and _is_ideograph(text[-1]) else text.rfind(" ") + 1
        new = text[sequence.shown : end]
        sequence.shown += len(new)
        return new

    def _rest(self, sequence: _Sequence) -> str:
        text = self.tokenizer.decode(sequence.tokens, **self.decode_kwargs) if sequence.tokens else ""
        new = text[sequence.shown :]
        sequence.tokens, sequence.shown = [], 0
        return new


def _is_ideograph(char: str) -> bool:
    """Whether a character is a word by itself: CJK ideographs, which have no blanks between them."""
    code = ord(char)
    return (
        0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x2FA1F
    )
