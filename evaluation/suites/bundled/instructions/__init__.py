"""Instructions that a program can check, in the spirit of IFEval, Zhou et al., arXiv 2311.07911; prompts of our own."""
