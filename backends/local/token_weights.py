"""Weights of an example's tokens: stretches of its completion, in characters, as the tokens that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Example


def token_weights(
    example: Example, ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> tuple[float, ...] | None:
    """The weight of each of a completion's tokens, its end token included; None where all of them weigh 1.

    Args:
        example: whose weights they are.
        ids: what is learned of it, as the model writes it: what comes before the completion, the completion, the end.
        decode: tokens as text, special ones written out.

    Raises:
        BackendError: the completion cannot be found in its own tokens, so that no stretch of it can be either.
    """
    if not example.weighted:
        return None
    weights = [example.weight] * len(ids)
    if not example.spans:
        return tuple(weights)
    place_of, low, high = _place(example.completion, ids, decode)
    for span in example.spans:
        begin, end = max(span.start, low), min(span.end, high)
        if begin >= end:  # a template took that white space away
            continue
        first = _token_at(place_of + begin, ids, decode)
        last = _token_at(place_of + end - 1, ids, decode)
        for place in range(first, min(last, len(ids) - 1) + 1):
            weights[place] = span.weight
    return tuple(weights)


def _place(completion: str, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[int, int, int]:
    """Where a completion is in the text of its tokens.

    Returns:
        The place of its first character (below 0 where a template took it away), and from which of its characters
        to before which it is there: templates may take white space off both ends.
    """
    text = decode(ids)
    # From the right: what a model thinks may hold its answer.
    for said in (completion, completion.strip()):
        found = text.rfind(said)
        if found >= 0 and said:
            low = completion.index(said)
            return found - low, low, low + len(said)
    raise BackendError("its completion cannot be found in its own tokens, so weights of its parts have none")


def _token_at(place: int, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
    """The token that holds the character at a place: one less than the shortest beginning that reaches beyond it."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(ids[:middle])) > max(place, 0):
            high = middle
        else:
            low = middle + 1
    return max(0, low - 1)
