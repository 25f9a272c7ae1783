"""The names of what is measured and compared: metrics, red-team rates, checks of one reply, prices."""
