"""`python -m armillary`."""

from armillary.cli import command

command()
