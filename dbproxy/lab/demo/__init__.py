"""The Machine ID guide on one machine: what `dbproxy demo` runs."""
