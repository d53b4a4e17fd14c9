"""What may be tried: configurations and the spaces they are drawn from."""
