"""HumanEval, Chen et al., arXiv 2107.03374."""
