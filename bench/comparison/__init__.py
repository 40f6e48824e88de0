"""dbproxy and its peers, side by side: what is measured, how, and what becomes of the figures."""
