"""How many bits: number formats per block, as policies that are searched jointly with the architecture."""
