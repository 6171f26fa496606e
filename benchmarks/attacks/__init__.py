"""Programs that try to break the library on a scale that tests cannot take: each is run by hand and prints a table."""
