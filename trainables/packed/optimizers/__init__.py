"""Updates adapters' weights: AdamW in 32 and in 8 bits, with its moments on the card or in host memory."""
