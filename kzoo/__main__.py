"""``python -m kzoo``."""

from kzoo.cli import main

main()
