"""How sure a number is: intervals, effects, the uncertainty of the front."""
