"""The sub-commands of vidadapt prepare: options, and what each calls."""
