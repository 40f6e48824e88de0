"""Is everything as it should be? Checks that say so before a user finds out."""
