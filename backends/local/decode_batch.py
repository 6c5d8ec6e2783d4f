"""The rows of a decode batch in their buffers: prefill, one token for each, and holes that close as rows leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from windowshift.backends.local.decode_row import Decoded, Forward, Row, Watcher
from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.local.inversion import draw, uniforms
from windowshift.backends.local.kv_cache import CHUNK, CachePlan, SlotCache
from windowshift.backends.local.static_steps import StaticSteps, StepCounts, columns_for

if TYPE_CHECKING:
    from windowshift.backends.local.fixed_forward import FixedForward

CHECKED_EVERY = 8
"""Steps between two looks at which rows have ended, where nobody reads along: until then they are computed in vain."""
_COLUMNS = 256
_SHARED_FROM = 8  # tokens: a chat template's first ones are common to all prompts, and not worth it


def beginning(one: Row, other: Row) -> int:
    """How many tokens two prompts begin with in common, and can be run once: each keeps one of its own."""
    if one.adapter is not other.adapter or one.recipe is not None or other.recipe is not None:
        return 0  # a push on the tokens of a prompt is proven for each row
    most = min(len(one.prompt), len(other.prompt)) - 1
    return next((at for at in range(most) if one.prompt[at] != other.prompt[at]), most)


def _more_columns(width: int, longest: int) -> int:
    """Columns for so many live ones, of rows that come to `longest` at most.

    Twice the width leaves room to move back in place next time, without a new buffer.
    """
    return max(min(2 * width + 64, longest + _COLUMNS), width + 1)


def grown_columns(prompt: int, completion: int) -> int:
    """The columns that steps which grow come to, of rows that are drawn together to their ends."""
    columns = _COLUMNS if prompt <= _COLUMNS else prompt + _COLUMNS
    while columns < prompt + completion - 1:  # what is drawn last is not written
        columns = _more_columns(columns, prompt + completion)
    return columns


def families(group: Sequence[Row]) -> list[tuple[int, list[Row]]]:
    """Rows by the beginning that they share, with its length; it is 0 where it is short. Empty where all are.

    Rows that are pushed are in no family, as the group then has none.
    """
    if any(row.recipe is not None for row in group):
        return []
    found: list[tuple[int, list[Row]]] = []
    for row in sorted(group, key=lambda row: (id(row.adapter), row.prompt)):
        common = min(beginning(row, found[-1][1][-1]), found[-1][0]) if found else 0
        if common >= _SHARED_FROM:
            found[-1] = (common, [*found[-1][1], row])
        else:
            found.append((len(row.prompt) - 1, [row]))
    found = [(shared if len(rows) > 1 else 0, rows) for shared, rows in found]
    return found if any(shared for shared, _ in found) else []


class DecodeBatch:
    """Rows in decoding. Row i of every buffer is request `self.rows[i]`; the first `size` are live."""

    def __init__(
        self,
        forward: Forward,
        end_ids: frozenset[int],
        plan: CachePlan,
        slots: int,
        device: torch.device,
        watch: Watcher | None,
        shares: Callable[[int], bool],
        fixed: FixedForward | None,
        counts: StepCounts,
    ) -> None:
        self._forward, self._watch, self._shares, self._counts = forward, watch, shares, counts
        self._plan, self._slots, self._device = plan, slots, device
        self._cache = SlotCache(plan, slots, _COLUMNS)
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
        self.rows: list[Row] = []
        self._drawn: dict[int, list[DrawnToken]] = {}  # by row index, of rows that ask for them
        self._start = self._integers(slots)  # first column of the row
        self._done = self._integers(slots)  # tokens drawn
        self._limit = self._integers(slots)
        self._last = self._integers(slots)  # the token drawn last
        self._tokens = self._integers(slots, 0)  # [slots, tokens]
        self._mask = self._integers(slots, _COLUMNS)  # 1 from the row's first column on
        self._temperature = self._integers(slots).double()
        self._top_p = self._integers(slots).double()
        self._uniform = self._integers(slots, 0).double()  # [slots, tokens]
        self._index = torch.arange(slots, device=device)
        # What became of rows in steps that nobody has looked at yet.
        self._alive = torch.zeros(slots, dtype=torch.bool, device=device)
        self._ended, self._unsound = torch.zeros_like(self._alive), torch.zeros_like(self._alive)
        self._unseen = 0  # such steps
        self._until = CHECKED_EVERY  # steps until one is looked at
        self._static: StaticSteps | None = None
        if fixed is not None:
            self._static = StaticSteps(
                fixed, self._cache, slots, device, self._last, self._start, self._alive, counts
            )  # fmt: skip

    @property
    def size(self) -> int:
        """Live rows."""
        return len(self.rows)

    @torch.inference_mode()
    def admit(self, group: list[Row]) -> list[Decoded]:
        """Prefill new rows and draw their first token."""
        before = self._collect() if self._unseen else []
        at, parts = self.size, [group]
        begun: list[tuple[int, list[Row]]] = []
        if self._plan.recurrent:  # padding would run through the state: rows of one length together
            group = sorted(group, key=lambda row: len(row.prompt))
            parts = [list(same) for _, same in groupby(group, key=lambda row: len(row.prompt))]
        else:
            begun = families(group)
            if not begun or not self._shares(sum(shared * (len(rows) - 1) for shared, rows in begun)):
                begun = []
        if begun:
            group = [row for _, rows in begun for row in rows]
            logits = self._prefill_shared(begun)
        else:
            self._make_room(max(len(row.prompt) for row in group), group)
            logits = torch.cat([self._prefill(part) for part in parts])
        new = slice(at, self.size)
        self._done[new] = 0
        self._fill(group, new)
        found = self._take(logits, new)
        self._settle()
        return before + found

    def _prefill(self, group: list[Row]) -> Tensor:
        """Run the prompts of new rows and let these into the cache; logits [rows, vocabulary] at their last token."""
        lengths = [len(row.prompt) for row in group]
        fresh, logits = self._run_prompts(group, min(lengths))
        length = torch.tensor(lengths, device=self._device)
        width, keep = max(lengths), logits.shape[1]
        self._let_in(fresh, group, length)
        return logits[self._index[: len(group)], length - 1 - (width - keep)]

    def _run_prompts(self, group: Sequence[Row], needed: int) -> tuple[SlotCache, Tensor]:
        """A cache with the prompts of rows, and the logits from token `needed` (from 1) of them on."""
        width = max(len(row.prompt) for row in group)
        positions = torch.arange(width, device=self._device).expand(len(group), -1)
        fresh = SlotCache(self._plan, len(group), width)
        fresh.span(len(group), 0)
        ids = self._padded([row.prompt for row in group], width)
        return fresh, self._forward(ids, None, positions, fresh, group, width - needed + 1)

    def _prefill_shared(self, begun: Sequence[tuple[int, list[Row]]]) -> Tensor:
        """As `_prefill`, the beginning that the rows of a family share run once, and what is their own behind it."""
        first = [replace(rows[0], prompt=rows[0].prompt[:shared]) for shared, rows in begun if shared]
        widest = max(len(row.prompt) for row in first)
        common, _ = self._run_prompts(first, widest)  # no logits but those of one column
        group = [row for _, rows in begun for row in rows]
        place = {row.index: number for number, row in enumerate(first)}
        # A row without a beginning takes none of the first one's.
        sources = [place[rows[0].index] if shared else 0 for shared, rows in begun for _ in rows]
        which = torch.tensor(sources, device=self._device)
        before = torch.tensor([shared for shared, rows in begun for _ in rows], device=self._device)
        own = [row.prompt[shared:] for shared, rows in begun for row in rows]
        lengths = [len(ids) for ids in own]
        width, keep = max(lengths), max(lengths) - min(lengths) + 1
        self._make_room(widest + width, group)
        fresh = SlotCache(self._plan, len(group), widest + width)
        fresh.span(len(group), 0)
        # Beginnings end at one column, so that what follows begins at one.
        fresh.begin(common, which, before, widest)
        positions = before[:, None] + torch.arange(width, device=self._device)[None, :]
        columns = torch.arange(widest + width, device=self._device)
        mask = (columns[None, :] >= (widest - before)[:, None]).long()
        logits = self._forward(self._padded(own, width), mask, positions, fresh, group, keep)
        length = torch.tensor(lengths, device=self._device)
        self._let_in(fresh, group, length + before, columns=length + widest)
        return logits[self._index[: len(group)], length - 1 - (width - keep)]

    def _padded(self, prompts: Sequence[list[int]], width: int) -> Tensor:
        # Padding repeats the first token: any token does, as nothing real looks at it.
        return torch.tensor([ids + ids[:1] * (width - len(ids)) for ids in prompts], device=self._device)

    def _let_in(self, fresh: SlotCache, group: Sequence[Row], length: Tensor, columns: Tensor | None = None) -> None:
        """Let new rows of `length` [rows] tokens into the cache; theirs end behind `columns` [rows] columns."""
        at, size = self.size, self.size + len(group)
        end = self._cache.end
        self._cache.admit(fresh, length if columns is None else columns, at, end)
        new = slice(at, size)
        self._start[new] = end - length
        every = torch.arange(self._cache.columns, device=self._device)
        self._mask[new] = (every[None, :] >= self._start[new, None]).long()
        self.rows.extend(group)

    @torch.inference_mode()
    def step(self) -> list[Decoded]:
        """Feed each row the token it drew last, and draw the next one; the rows that were found to have ended."""
        # Who reads along from now on is told of rows that are drawn for, and not of those that ended before.
        read = self._static is not None and self._read_each_step()
        before = self._collect() if read and self._unseen else []
        if not self.rows:
            return before
        cache, size = self._cache, self.size
        if not cache.room(1) or (self._static is not None and self._static.moves()):
            width = cache.end - cache.first
            longest = max(len(row.prompt) + row.max_tokens for row in self.rows)
            self._relocate(0, cache.columns if self._fits(width) else _more_columns(width, longest))
        if self._static is not None:
            logits = self._static.logits(self.rows)
            cache.place(cache.end + 1)
            if read:
                return before + self._take(logits, slice(0, size))
            self._draw_unseen(logits, size)
            return self._collect() if self._unseen >= self._until else []
        self._counts.launched += 1
        mask = self._mask[:size, cache.first : cache.end + 1]
        positions = (cache.end - self._start[:size])[:, None]
        logits = self._forward(self._last[:size, None], mask, positions, cache, self.rows, 1)
        cache.place(cache.end + 1)
        return self._take(logits[:, -1], slice(0, size))

    def _fits(self, width: int) -> bool:
        """Whether so many live columns can be moved to the beginning of the buffers that there are, and be worth it."""
        columns = self._cache.columns
        return width < columns if self._static is not None else width <= columns // 2

    def _read_each_step(self) -> bool:
        """Whether somebody wants to know of each token as it is drawn."""
        followed = self._watch is not None and self._watch.follows
        return followed or any(row.logprobs is not None for row in self.rows)

    def _draw_unseen(self, logits: Tensor, size: int) -> None:
        """Draw a token for each row that has not ended, without waiting for the device."""
        which, index = slice(0, size), self._index[:size]
        done, alive = self._done[which], self._alive[which]
        tokens, sound = self._drawn_from(logits.double(), which)
        self._tokens[index, done] = tokens  # behind the last one, where a row has ended
        self._last[which] = tokens
        ended = torch.isin(tokens, self._end_ids)
        self._ended[which] |= alive & ended
        self._unsound[which] |= alive & ~sound
        done += alive
        alive &= sound & ~ended & (done < self._limit[which])
        self._unseen += 1

    @torch.inference_mode()
    def _collect(self) -> list[Decoded]:
        """See which rows have ended in the steps that nobody has looked at, and let them leave."""
        size, self._unseen = self.size, 0
        parts = (self._alive, self._done, self._ended, self._unsound)
        seen = torch.stack([part[:size].long() for part in parts], dim=1).tolist()  # waits for the device
        leaving = [slot for slot, (alive, *_) in enumerate(seen) if not alive]
        found: list[Decoded] = []
        if leaving:
            for slot, ids in zip(leaving, self._tokens[leaving].tolist(), strict=True):
                _, count, ended, unsound = seen[slot]
                finish: Literal["stop", "length", "failed"] = "failed" if unsound else "stop" if ended else "length"
                found.append(Decoded(self.rows[slot], [] if unsound else ids[: count - ended], finish))
        left = [row.max_tokens - count for row, (alive, count, *_) in zip(self.rows, seen, strict=True) if alive]
        self._until = min([CHECKED_EVERY, *left])
        if leaving:
            self._drop(set(leaving))
            self._settle()
        return found

    @torch.inference_mode()
    def drop(self, leaving: Callable[[Row], bool]) -> None:
        """Let rows leave unfinished."""
        slots = {slot for slot, row in enumerate(self.rows) if leaving(row)}
        if slots:
            for slot in slots:
                self._drawn.pop(self.rows[slot].index, None)
            self._drop(slots)
            self._settle()

    def _integers(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.long, device=self._device)

    def _take(self, logits: Tensor, which: slice) -> list[Decoded]:
        """Draw a token for the rows `which`, and let those that end leave."""
        done, index, logits = self._done[which], self._index[which], logits.double()
        tokens, sound = self._drawn_from(logits, which)
        self._tokens[index, done] = tokens
        self._last[which] = tokens
        self._note(logits, tokens, self.rows[which])
        done += 1
        ended = torch.isin(tokens, self._end_ids)
        leaving = ended | (done >= self._limit[which]) | ~sound
        stopped: set[int] = set()
        if self._watch is not None:
            stopped = set(self._watch.take(self.rows[which], tokens, self._drawn))
            for i in stopped:
                leaving[i] = True
        found: list[Decoded] = []
        if bool(leaving.any()):
            for i in leaving.nonzero().squeeze(1).tolist():
                slot, count = which.start + i, int(done[i])
                stop, whole = bool(ended[i]), bool(sound[i])
                ids = self._tokens[slot, : count - 1 if stop else count].tolist()
                finish: Literal["stop", "length", "failed"] = "stop" if stop or i in stopped else "length"
                row, ids = self.rows[slot], ids if whole else []
                drawn = tuple(self._drawn.pop(row.index, ())[: len(ids)])
                found.append(Decoded(row, ids, finish if whole else "failed", drawn))
            self._drop({which.start + i for i in leaving.nonzero().squeeze(1).tolist()})
            self._settle()
        return found

    def _drawn_from(self, logits: Tensor, which: slice) -> tuple[Tensor, Tensor]:
        """A token for each of the rows `which`, by its own random number, and whether its logits were finite."""
        rows = self.rows[which]
        return draw(
            logits,
            self._uniform[self._index[which], self._done[which]],
            self._temperature[which],
            self._top_p[which],
            greedy=any(row.temperature == 0 for row in rows),
            nucleus=any(row.top_p < 1 for row in rows),
        )

    def _note(self, logits: Tensor, tokens: Tensor, rows: Sequence[Row]) -> None:
        """Keep what the model thought of the tokens of those rows that ask for it."""
        asking = [(i, row.index, row.logprobs) for i, row in enumerate(rows) if row.logprobs is not None]
        if asking:
            places = torch.tensor([i for i, _, _ in asking], device=self._device)
            noted = _drawn_tokens(logits[places], tokens[places], [top for _, _, top in asking])
            for (_, index, _), each in zip(asking, noted, strict=True):
                self._drawn.setdefault(index, []).append(each)

    def _drop(self, slots: set[int]) -> None:
        """Close the holes that leaving rows make, keeping rows of one age next to each other.

        Attention goes over `CHUNK` rows at a time, from the first column that one of them needs: so
        each chunk is refilled from the next younger one, which moves a few rows a step.
        """
        staying = [slot for slot in range(self.size) if slot not in slots]
        sources: list[int] = []
        targets: list[int] = []
        for at in range(0, len(staying), CHUNK):
            members = staying[at : at + CHUNK]
            places = range(at, at + len(members))
            targets.extend(sorted(set(places).difference(members)))
            sources.extend(sorted(set(members).difference(places)))
        if targets:
            to = torch.tensor(targets, device=self._device)
            source = torch.tensor(sources, device=self._device)
            self._cache.move_rows(source, to)
            for state in (
                self._start,
                self._done,
                self._limit,
                self._last,
                self._temperature,
                self._top_p,
                self._uniform,
                self._tokens,
                self._mask,
                self._alive,
                self._ended,
                self._unsound,
            ):
                state[to] = state[source]
            moved = [self.rows[slot] for slot in sources]
            for slot, row in zip(targets, moved, strict=True):
                self.rows[slot] = row
        del self.rows[len(staying) :]

    def _settle(self) -> None:
        """Trim the left padding that all live rows share."""
        starts = self._start[: self.size].tolist()
        firsts = [min(starts[at : at + CHUNK]) for at in range(0, self.size, CHUNK)]
        first = min(firsts, default=self._cache.end)
        self._cache.span(self.size, first)
        self._cache.chunk_firsts = [each - first for each in firsts]

    def _make_room(self, width: int, group: Sequence[Row]) -> None:
        """Make the live columns end at `width` or later, so that new rows fit before that end."""
        cache = self._cache
        wanted, least = width + _COLUMNS, width
        if self._static is not None:  # buffers that are made anew cost what was recorded: enough at once
            wanted = max(width, columns_for(max(len(row.prompt) + row.max_tokens for row in group)))
            least = wanted
        if self.size == 0:
            cache.span(0, 0)
            cache.place(0)
            if cache.columns < least:
                self._relocate(0, wanted)
            cache.place(width)
        elif cache.end < width or cache.columns < least:
            end = max(cache.end, width)
            self._relocate(end - (cache.end - cache.first), max(cache.columns, wanted))

    def _relocate(self, first: int, columns: int) -> None:
        cache, size = self._cache, self.size
        self._start[:size] += first - cache.first
        if self._static is not None and columns != cache.columns:
            self._static.forget()
        cache.relocate(first, columns)
        at = torch.arange(columns, device=self._device)
        self._mask = self._integers(self._slots, columns)
        self._mask[:size] = (at[None, :] >= self._start[:size, None]).long()

    def _fill(self, group: list[Row], new: slice) -> None:
        """Write the constants of new rows: limits, sampling parameters, random stream."""
        widest = max(row.max_tokens for row in group) + 1  # a row that has ended may be drawn for once more
        if widest > self._uniform.shape[1]:
            extra = widest - self._uniform.shape[1]
            self._uniform = torch.nn.functional.pad(self._uniform, (0, extra))
            self._tokens = torch.nn.functional.pad(self._tokens, (0, extra))
        self._limit[new] = torch.tensor([row.max_tokens for row in group], device=self._device)
        self._temperature[new] = torch.tensor(
            [row.temperature for row in group], dtype=torch.float64, device=self._device
        )
        self._top_p[new] = torch.tensor([row.top_p for row in group], dtype=torch.float64, device=self._device)
        streams = np.zeros((len(group), widest))
        for i, row in enumerate(group):
            streams[i, : row.max_tokens] = uniforms(row.seed, row.max_tokens)
        self._uniform[new, :widest] = torch.from_numpy(streams).to(self._device)
        self._alive[new], self._ended[new], self._unsound[new] = True, False, False
        self._until = min(self._until, *(row.max_tokens - 1 for row in group))


def _drawn_tokens(logits: Tensor, tokens: Tensor, tops: Sequence[int]) -> list[DrawnToken]:
    """Look up one drawn token a row.

    Args:
        logits: [rows, vocabulary].
        tokens: [rows], the ids drawn.
        tops: for each row, how many of the likeliest tokens to name.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
    best, ids = logprobs.topk(min(max(tops), logprobs.shape[1]), dim=-1)
    ranked = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), best.tolist(), strict=True)]
    return [
        DrawnToken(token, logprob, tuple(row[:top]))
        for token, logprob, row, top in zip(tokens.tolist(), chosen, ranked, tops, strict=True)
    ]
