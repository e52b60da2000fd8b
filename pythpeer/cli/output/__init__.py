"""What the commands print: rows, tables, bars and JSON."""
