"""`python -m nas`, so that `torchrun` can start it."""

from nas.cli import main

if __name__ == "__main__":
    main()
