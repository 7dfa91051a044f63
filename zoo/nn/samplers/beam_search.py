"""Beam search over incremental decoders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zoo.nn.samplers.autoregressive import IncrementalDecoder, prefill, truncate
from zoo.nn.samplers.text_stream import Completion, TextStreamer


@dataclass
class Beam:
    """A text under construction and what it is worth."""

    writer: TextStreamer
    history: list[int]
    score: float  # nats


def beam_search(
    model: IncrementalDecoder,
    prompt: Sequence[int],
    pieces: Sequence[bytes],
    end: int | None,
    *,
    beams: int,
    limit: int,
    length_penalty: float = 1.0,
    stop: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Completion:
    """`beam_searches` after one prompt."""
    return beam_searches(
        model, [prompt], pieces, end,
        beams=beams, limits=[limit], length_penalty=length_penalty, stop=stop, device=device,
    )[0]  # fmt: skip


@torch.no_grad()
def beam_searches(
    model: IncrementalDecoder,
    prompts: Sequence[Sequence[int]],
    pieces: Sequence[bytes],
    end: int | None,
    *,
    beams: int,
    limits: Sequence[int],
    length_penalty: float = 1.0,
    stop: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> list[Completion]:
    """For each prompt the completion of highest log-probability / tokens^length_penalty that a search so wide finds.

    All searches take their steps together, each as it would alone, until it is over.

    Args:
        model: predicts.
        prompts: tokens before.
        pieces: the bytes of every token.
        end: the end-of-text token, or None.
        beams: unfinished texts that each search keeps at each step.
        limits: most tokens, for each prompt.
        length_penalty: 0 favours short texts, 1 compares nats per token.
        stop: stop sequences, which finish a beam.
        device: of the model.
    """

    def worth(score: float, length: int) -> float:
        return score / max(length, 1) ** length_penalty

    live = {n: [Beam(TextStreamer(pieces, end, stop, limit), list(p), 0.0)] for n, (p, limit) in
            enumerate(zip(prompts, limits, strict=True))}  # fmt: skip
    best: dict[int, tuple[float, Completion]] = {
        n: (0.0, first.writer.result()) for n, (first,) in live.items() if first.writer.finish
    }
    live = {n: group for n, group in live.items() if n not in best}
    rows = [b for group in live.values() for b in group]
    if rows:
        logits, state, room = prefill(model, [b.history for b in rows], device)
    while live:
        # Added up in double precision on the host, which has to look at each step anyway.
        scores = logits.log_softmax(-1).cpu().double() + torch.tensor([[b.score] for b in rows], dtype=torch.double)
        table = scores.new_full((len(live), beams, scores.shape[1]), -torch.inf)  # searches x beams x tokens
        table[torch.tensor([[i < len(group) for i in range(beams)] for group in live.values()])] = scores
        flat = table.flatten(1)
        values, places = flat.topk(min(2 * beams, flat.shape[1]))
        kept, parents, first = dict[int, list[Beam]](), list[int](), 0
        for (n, group), worths, found in zip(live.items(), values.tolist(), places.tolist(), strict=True):
            grown, origins = list[Beam](), list[int]()
            for score, place in zip(worths, found, strict=True):
                if len(grown) == beams or score == -torch.inf:
                    break
                parent, token = divmod(place, scores.shape[1])
                writer = group[parent].writer.fork()
                writer.push(token, score - group[parent].score)
                if not writer.finish:
                    grown.append(Beam(writer, [*group[parent].history, token], score))
                    origins.append(first + parent)
                elif n not in best or worth(score, len(writer.log_probs)) > best[n][0]:
                    best[n] = worth(score, len(writer.log_probs)), writer.result()
            first += len(group)
            # Nats only fall: at most a beam is worth what it has now, spread over the greatest length.
            if grown and (n not in best or max(worth(b.score, limits[n]) for b in grown) > best[n][0]):
                kept[n] = grown
                parents += origins
        live = kept
        rows = [b for group in live.values() for b in group]
        if not rows:
            break
        if room:
            model.reorder(state, torch.tensor(parents, device=device))
            newest = torch.tensor([b.history[-1] for b in rows], device=device)
            logits, room = model.step(newest, state).float(), room - 1
        else:
            for beam in rows:
                beam.history = truncate(model, beam.history)
            logits, state, room = prefill(model, [b.history for b in rows], device)
    return [best[n][1] for n in range(len(prompts))]  # the limit finishes whatever nothing else does
