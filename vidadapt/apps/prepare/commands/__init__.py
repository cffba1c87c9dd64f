"""The sub-commands of tools/prepare.py: options, and what each calls."""
