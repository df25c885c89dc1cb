"""Output heads of agents: those that repeat the embedding, and those that training took away from it.

Where an agent keeps apart what the base ties, the merge keeps it apart too. The base is seen with its embedding under
the head's name as well, and so is every agent that ties the two; the merged model then stores both and ties neither.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.compare import same_bytes
from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.tying import embedding_first, text_setting, vocabulary_matrices, with_untied_head


def without_redundant_heads(base: Checkpoint, agent: Checkpoint) -> Checkpoint:
    """Return `agent` without the matrices that `base` does not have and that repeat one that it has, byte for byte."""
    matrices = vocabulary_matrices(agent.config, agent.tensors)
    extra = [tensor for tensor in matrices if tensor.name not in base.tensors]
    shared = [tensor for tensor in matrices if tensor.name in base.tensors]
    aliases: dict[str, str] = {}
    for tensor in extra:
        twin = next((other for other in shared if same_bytes(tensor, other)), None)
        if twin is not None:
            aliases[tensor.name] = twin.name
    kept = {name: tensor for name, tensor in agent.tensors.items() if name not in aliases}
    return replace(agent, tensors=MappingProxyType(kept), tied=MappingProxyType({**agent.tied, **aliases}))


def keep_heads_apart(
    base: Checkpoint, agents: Mapping[str, Checkpoint]
) -> tuple[Checkpoint, dict[str, Checkpoint], list[str]]:
    """Return `base` and `agents` seen with the heads that some of the agents keep apart, and sentences that say so.

    The agents come without redundant heads. Everything is returned as it is if no agent keeps a head apart.
    """
    if text_setting(base.config, "tie_word_embeddings") is False:
        return base, dict(agents), []
    embedding = min(vocabulary_matrices(base.config, base.tensors), key=embedding_first, default=None)
    if embedding is None:
        return base, dict(agents), []
    apart = {name: _own_heads(embedding, base, agent) for name, agent in agents.items()}
    heads = {head: replace(embedding, name=head) for own in apart.values() for head in own}
    if not heads:
        return base, dict(agents), []
    config = MappingProxyType(with_untied_head(base.config))
    views = {name: _with_heads(agent, heads, embedding.name) for name, agent in agents.items()}
    notes = [
        f"agent {name!r} keeps its head ({', '.join(own)}) apart from its embedding, which the base ties: the merged "
        "model stores both"
        for name, own in apart.items()
        if own
    ]
    tensors = MappingProxyType(dict(sorted({**base.tensors, **heads}.items())))
    return replace(base, tensors=tensors, config=config), views, notes


def _own_heads(embedding: TensorInfo, base: Checkpoint, agent: Checkpoint) -> list[str]:
    matrices = vocabulary_matrices(agent.config, agent.tensors)
    return [t.name for t in matrices if t.name not in base.tensors and t.shape[1:] == embedding.shape[1:]]


def _with_heads(agent: Checkpoint, heads: Mapping[str, TensorInfo], embedding: str) -> Checkpoint:
    twin = agent.tensors.get(embedding)
    if twin is None:
        return agent
    lent = {head: replace(twin, name=head) for head in heads if head not in agent.tensors}
    return replace(agent, tensors=MappingProxyType(dict(sorted({**agent.tensors, **lent}.items()))))
