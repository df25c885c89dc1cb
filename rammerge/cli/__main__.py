"""`python -m rammerge.cli`."""

from rammerge.cli import main

main()
