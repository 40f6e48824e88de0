"""Parts of the soak: load, the proxy as a process, what is counted."""
