"""Beam search over incremental decoders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zoo.nn.samplers.autoregressive import IncrementalDecoder, prefill, truncate
from zoo.nn.samplers.text_stream import Completion, TextStreamer


@dataclass
class Beam:
    """A hypothesis and its score."""

    streamer: TextStreamer
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
    """Search after one prompt, see `batched_beam_search` and `TextStreamer`."""
    streamer = TextStreamer(pieces, end, stop, limit)
    return batched_beam_search(model, [prompt], [streamer], beams=beams, length_penalty=length_penalty, device=device)[
        0
    ]


@torch.no_grad()
def batched_beam_search(
    model: IncrementalDecoder,
    prompts: Sequence[Sequence[int]],
    streamers: Sequence[TextStreamer],
    *,
    beams: int,
    length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[Completion]:
    """Find for each prompt the completion of highest log-probability / tokens^length_penalty among the beams.

    The searches step together, but each gives the result that it would give alone.

    Args:
        model: predicts the next token.
        prompts: token ids.
        streamers: new ones, one per prompt, with a limit.
        beams: unfinished hypotheses kept per search and step.
        length_penalty: 0 favours short texts; 1 compares nats per token (Wu et al. 2016, 1609.08144, without their
            offset).
        device: device of the model.
    """

    def normalised_score(score: float, length: int) -> float:
        return score / max(length, 1) ** length_penalty

    def bound(beam: Beam) -> float:
        """The best score that a continuation can have: its log-probability only falls."""
        limit = beam.streamer.limit or 0
        return normalised_score(beam.score, limit if length_penalty >= 0 else len(beam.streamer.tokens) + 1)

    live = {n: [Beam(s, list(p), 0.0)] for n, (p, s) in enumerate(zip(prompts, streamers, strict=True))}
    best: dict[int, tuple[float, Completion]] = {
        n: (0.0, first.streamer.result()) for n, (first,) in live.items() if first.streamer.finish_reason
    }
    live = {n: group for n, group in live.items() if n not in best}
    rows = [b for group in live.values() for b in group]
    if rows:
        logits, state, room = prefill(model, [b.history for b in rows], device)
    while live:
        # Sum in double precision on the host, which reads the result of each step anyway.
        scores = logits.log_softmax(-1).cpu().double() + torch.tensor([[b.score] for b in rows], dtype=torch.double)
        table = scores.new_full((len(live), beams, scores.shape[1]), -torch.inf)  # (searches, beams, V)
        table[torch.tensor([[i < len(group) for i in range(beams)] for group in live.values()])] = scores
        flat_scores = table.flatten(1)
        values, indices = flat_scores.topk(min(2 * beams, flat_scores.shape[1]))
        kept, parents, first = dict[int, list[Beam]](), list[int](), 0
        for (n, group), totals, found in zip(live.items(), values.tolist(), indices.tolist(), strict=True):
            extended, sources = list[Beam](), list[int]()
            for score, index in zip(totals, found, strict=True):
                if len(extended) == beams or score == -torch.inf:
                    break
                parent, token = divmod(index, scores.shape[1])
                streamer = group[parent].streamer.fork()
                streamer.push(token, score - group[parent].score)
                if not streamer.finish_reason:
                    extended.append(Beam(streamer, [*group[parent].history, token], score))
                    sources.append(first + parent)
                elif n not in best or normalised_score(score, len(streamer.log_probs)) > best[n][0]:
                    best[n] = normalised_score(score, len(streamer.log_probs)), streamer.result()
            first += len(group)
            if extended and (n not in best or max(map(bound, extended)) > best[n][0]):
                kept[n] = extended
                parents += sources
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
    return [best[n][1] for n in range(len(prompts))]  # every beam finishes at its limit
