"""The compression lab: operations in a line, lines in a table, all from one teacher in one run."""
