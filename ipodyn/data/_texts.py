"""Prompts and responses that are texts or conversations, as trainers keep them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ._report import DataError
from ._tables import Ids

if TYPE_CHECKING:
    import polars

_TURN = "\n\nAssistant:"  # how transcripts in one string mark where a response begins

Turns = tuple[tuple[str, str], ...]  # (role, content) of each message


def conversation_ids(
    frame: "polars.DataFrame", prompt: str | None, chosen: str, rejected: str, path: object
) -> tuple[Ids, np.ndarray, np.ndarray, list[str]]:
    """(prompts, codes of the chosen, codes of the rejected, their texts); -1 is a missing one.

    Texts or lists of messages ({"role", "content"}). Without a column of prompts, what both begin with is the prompt.
    """
    start = frame[prompt].to_list() if prompt is not None else [None] * frame.height
    prompts: dict[Any, int] = {}
    labels: dict[str, int] = {}
    codes = np.full((3, frame.height), -1)
    rows = zip(start, frame[chosen].to_list(), frame[rejected].to_list(), strict=True)
    for row, (said, better, worse) in enumerate(rows):
        if better is None or worse is None:
            continue
        asked, good, bad = _split(said, better, worse, f"{path}: row {row + 1}")
        codes[0, row] = prompts.setdefault(asked, len(prompts)) if asked else -1
        for place, text in ((1, good), (2, bad)):
            codes[place, row] = labels.setdefault(text, len(labels)) if text else -1
    return Ids(codes[0], list(prompts)), codes[1], codes[2], list(labels)


def _split(said: Any, better: Any, worse: Any, where: str) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) as texts; a response does not repeat its prompt."""
    if isinstance(better, str) != isinstance(worse, str):
        raise DataError(f"{where}: one response is a text and the other a conversation; give two of one kind")
    if isinstance(better, str):
        if said is None:
            end = _shared_transcript(better, worse, where)
            return better[:end].strip(), better[end:].strip(), worse[end:].strip()
        asked = said if isinstance(said, str) else text_of(_turns(said, where))
        return asked.strip(), better.removeprefix(asked).strip(), worse.removeprefix(asked).strip()
    good, bad = _turns(better, where), _turns(worse, where)
    shared = 0
    while shared < min(len(good), len(bad)) - 1 and good[shared] == bad[shared]:
        shared += 1
    if said is None and shared == 0:
        raise DataError(f"{where}: the two conversations share no first message; name the column of prompts")
    asked = text_of(good[:shared]) if said is None else said if isinstance(said, str) else text_of(_turns(said, where))
    return asked.strip(), text_of(good[shared:]), text_of(bad[shared:])


def _shared_transcript(better: str, worse: str, where: str) -> int:
    """Where the responses of two transcripts begin: after the last turn mark in what they share."""
    same = next(
        (i for i, (a, b) in enumerate(zip(better, worse, strict=False)) if a != b), min(len(better), len(worse))
    )
    turn = better.rfind(_TURN, 0, same)
    if turn < 0:
        raise DataError(f"{where}: there is no column of prompts and no {_TURN.strip()!r} turn; name one by --prompt")
    return turn + len(_TURN)


def _turns(messages: Any, where: str) -> Turns:
    try:
        return tuple((str(message["role"]), str(message["content"])) for message in messages)
    except (TypeError, KeyError):
        raise DataError(f"{where}: holds {type(messages).__name__}; give texts or lists of role and content") from None


def text_of(turns: Turns) -> str:
    """Messages as one text; a single one is its content."""
    return (
        turns[0][1].strip() if len(turns) == 1 else "\n".join(f"{role}: {content}" for role, content in turns).strip()
    )
