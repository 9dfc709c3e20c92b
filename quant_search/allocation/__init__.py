"""Which option each layer gets: tables of damage and costs, and the methods that choose under budgets."""
