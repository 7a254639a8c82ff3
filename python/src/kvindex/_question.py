"""Prompts and questions as they are sent."""

from __future__ import annotations

import sys
from array import array
from typing import Any, Iterable, Mapping, Optional, Sequence, Union

from .v1 import query_pb2

#: Token ids, or the same packed as little-endian 32-bit words, such as `numpy.asarray(ids, "<u4").tobytes()`.
Tokens = Union[Sequence[int], Iterable[int], bytes, bytearray, memoryview]


def packed(tokens: Tokens) -> bytes:
    """Token ids in the cheap form: 4 bytes each, which a node hashes where they lie."""
    if isinstance(tokens, (bytes, bytearray, memoryview)):
        return bytes(tokens)
    # "I" has 4 bytes wherever Python runs today; where it has not, "L" has.
    words = array("I" if array("I").itemsize == 4 else "L", tokens)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def prompt_of_tokens(
    model: str,
    tokens: Tokens,
    *,
    tenant: str = "",
    lora: Optional[str] = None,
    cache_salt: Optional[str] = None,
    block_size: int = 0,
    items: Iterable[query_pb2.PromptItem] = (),
) -> query_pb2.Prompt:
    """A prompt of `model` by its token ids. `block_size` asks only for workers with blocks of so many tokens."""
    return query_pb2.Prompt(
        model=model,
        tenant=tenant,
        lora_name=lora,
        cache_salt=cache_salt,
        token_ids_le=packed(tokens),
        block_size=block_size,
        items=items,
    )


def prompt_of_hashes(
    model: str,
    block_size: int,
    *,
    sequence: Iterable[int] = (),
    engine: Iterable[int] = (),
    tenant: str = "",
    lora: Optional[str] = None,
) -> query_pb2.Prompt:
    """A prompt by the hashes of its blocks, first to last: `sequence` hashes (XXH3-64, seed 1337) or the `engine`'s own."""
    return query_pb2.Prompt(
        model=model,
        tenant=tenant,
        lora_name=lora,
        block_size=block_size,
        sequence_hashes=sequence,
        engine_block_hashes=engine,
    )


def question(
    prompt: query_pb2.Prompt,
    *,
    candidates: Iterable[str] = (),
    role: Optional[str] = None,
    pd_group: Optional[str] = None,
    labels: Optional[Mapping[str, str]] = None,
    tier: Optional[str] = None,
    top_k: Optional[int] = None,
    min_matched_blocks: int = 0,
    group_rollup: bool = False,
    consistency: str = "",
) -> query_pb2.MatchRequest:
    """A question about a prompt, with everything that it can have; the fields are the protocol's."""
    fields: dict[str, Any] = {"role": role, "pd_group": pd_group, "tier": tier, "top_k": top_k}
    return query_pb2.MatchRequest(
        prompt=prompt,
        candidates=candidates,
        labels=dict(labels or {}),
        min_matched_blocks=min_matched_blocks,
        group_rollup=group_rollup,
        consistency=consistency,
        **fields,
    )
