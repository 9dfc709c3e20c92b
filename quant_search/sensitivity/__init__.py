"""How much each part of a network suffers from a lower precision: measures of damage, one per file."""
