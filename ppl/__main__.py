"""`python -m ppl` is the `ppl` command."""

from ppl.cli import main

main()
