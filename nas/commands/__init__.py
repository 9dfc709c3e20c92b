"""The commands of the command line, by what they are about; `nas.cli` gathers them."""
