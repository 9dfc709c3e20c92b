"""What can be chosen, and the networks that realise a choice."""
