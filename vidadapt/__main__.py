"""`python -m vidadapt` and `torchrun -m vidadapt`."""

from vidadapt.cli import main

if __name__ == "__main__":
    main()
