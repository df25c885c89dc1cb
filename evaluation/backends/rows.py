"""Keys and values of rows of different lengths, in which a model that answers looks back.

torch is imported by the first call.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The cache of a layer has room for this many tokens more than are there, and where it grows, for half of those again.
_ROOM = 64


class Rows:
    """Rows that are read one after the other, without padding, and then grow by one token each at a time.

    Their keys and values end at the same place, so that what follows goes to one place. Rows that have ended make room:
    those that go on are always the first ones.

    Attributes:
        count: rows that go on.
        positions: of the next token of each row that goes on [count].
        last: where the last token of each row is among all that are read at first [count].
    """

    def __init__(self, lengths: Sequence[int], *, most: int, device: "torch.device") -> None:
        """Expect rows of these lengths, of which equal ones are best neighbours, that grow by at most `most` tokens."""
        import torch

        self.count = len(lengths)
        self._groups = list(_groups(lengths))
        self._end = max(lengths)
        self._most = self._end + most
        self._room = min(self._end + _ROOM, self._most)
        self.positions = torch.tensor(lengths, device=device)
        self.last = self.positions.cumsum(0) - 1
        self._first = self._end - self.positions
        self._cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._seen: torch.Tensor | None = None

    def attend(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float
    ) -> "torch.Tensor":
        """Keep a layer's keys and values; return what the queries find. All are [tokens, heads, size].

        There is a query for each token, or for the last one of each row.
        """
        if layer in self._cache:
            return self._follow(layer, query, key, value, scaling)
        return self._begin(layer, query, key, value, scaling)

    def step(self) -> None:
        """Make place for the next token of each row."""
        import torch

        self._end += 1
        self.positions += 1
        places = torch.arange(self._end, device=self.positions.device)
        self._seen = (places >= self._first[:, None])[:, None, None]

    def keep(self, going: "torch.Tensor") -> "torch.Tensor":
        """Forget the rows that do not go on; return which of the rows before is now in each place.

        Args:
            going: for each row, whether it goes on [count].
        """
        import torch

        count = int(going.sum())
        places = (~going[:count]).nonzero()[:, 0]
        moved = count + going[count:].nonzero()[:, 0]
        now = torch.arange(count, device=going.device)
        now[places] = moved
        for kept in self._cache.values():
            for each in kept:
                each[places, :, : self._end] = each[moved, :, : self._end]
        self.count, self.positions, self._first = count, self.positions[now], self._first[now]
        return now

    def _begin(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float
    ) -> "torch.Tensor":
        """Attend among the tokens of each row; rows of one length together."""
        import torch

        shape = (self.count, key.shape[1], self._room, key.shape[2])
        keys, values = self._cache[layer] = (key.new_empty(shape), value.new_empty(shape))
        found = torch.empty_like(query)
        for rows, tokens, length in self._groups:
            count, asking = rows.stop - rows.start, tokens if len(query) == len(key) else rows
            new = _by_row(key[tokens], count), _by_row(value[tokens], count)
            for kept, states in zip((keys, values), new, strict=True):
                kept[rows, :, : self._end - length] = 0
                kept[rows, :, self._end - length : self._end] = states
            _by_row(found[asking], count).copy_(_attend(_by_row(query[asking], count), *new, scaling))
        return found

    def _follow(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float
    ) -> "torch.Tensor":
        """Attend from one new token of each row to all of its row. Queries that share keys are like several tokens."""
        from torch.nn.functional import scaled_dot_product_attention

        keys, values = self._cache[layer]
        if self._end > keys.shape[2]:
            keys, values = self._cache[layer] = (self._grown(keys), self._grown(values))
        keys, values = (each[: self.count, :, : self._end] for each in (keys, values))
        keys[:, :, -1], values[:, :, -1] = key, value
        asked = query.view(self.count, key.shape[1], -1, query.shape[2])
        found = scaled_dot_product_attention(asked, keys, values, attn_mask=self._seen, scale=scaling)
        return found.reshape(query.shape)

    def _grown(self, kept: "torch.Tensor") -> "torch.Tensor":
        _, heads, places, size = kept.shape
        grown = kept.new_empty((self.count, heads, min(places + max(_ROOM, places // 2), self._most), size))
        grown[:, :, :places] = kept[: self.count]
        return grown


def _groups(lengths: Sequence[int]) -> Iterator[tuple[slice, slice, int]]:
    """Yield neighbours of one length: which rows they are, which of all tokens, and their length."""
    row = token = 0
    for length, same in groupby(lengths):
        count = len(list(same))
        yield slice(row, row + count), slice(token, token + count * length), length
        row, token = row + count, token + count * length


def _by_row(states: "torch.Tensor", rows: int) -> "torch.Tensor":
    """Return a view of [tokens, heads, size] as [rows, heads, tokens of each, size]."""
    return states.view(rows, -1, *states.shape[1:]).transpose(1, 2)


def _attend(query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float) -> "torch.Tensor":
    from torch.nn.functional import scaled_dot_product_attention

    shared = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(
        query, key, value, is_causal=query.shape[2] > 1, scale=scaling, enable_gqa=shared
    )
