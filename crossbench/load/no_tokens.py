"""A check for texts without tokens, before any request is sent. The server would reject them."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.errors import DatasetError
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving.service import MAX_SHOWN_CHARS
from crossbench.types import Int32Array, QueryPassages, Task


def refuse_no_tokens(lists: Sequence[QueryPassages], model: ModelFolder, task: Task) -> None:
    """Tokenise every text in the same way as the server and check that each has tokens.

    Raises:
        DatasetError: a text has no tokens.
    """
    tokenizer = PairTokenizer(model)
    for entry in lists:
        names = [f"passage {name} of query {entry.query_id}" for name in entry.passage_ids]
        texts = list(entry.passages)
        if model.embedding is not None and task is Task.SCORE:  # the query is a text of its own
            names, texts = [f"query {entry.query_id}", *names], [entry.query, *texts]
        lengths = _lengths(tokenizer, entry, model, task)
        if not lengths.all():
            first = int(lengths.argmin())
            raise DatasetError(
                f"{names[first]} has no tokens ({texts[first][:MAX_SHOWN_CHARS]!r}): the tokenizer "
                f"of {model.name} drops all its characters and adds no special tokens. Remove this "
                "text from the data set"
            )


def _lengths(
    tokenizer: PairTokenizer, entry: QueryPassages, model: ModelFolder, task: Task
) -> Int32Array:
    """Return the token lengths of the list's sequences, with the query first if it is embedded."""
    embedding = model.embedding
    if embedding is None:
        return tokenizer.encode_query(entry.query, entry.passages).batch.lengths
    if task is Task.EMBED:
        texts = [embedding.prompt + text for text in entry.passages]
    else:
        texts = [embedding.query_prompt + entry.query]
        texts += [embedding.passage_prompt + text for text in entry.passages]
    return tokenizer.encode_texts(texts).batch.lengths
