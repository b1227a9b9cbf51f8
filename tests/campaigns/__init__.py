"""Campaigns: long checks on the real stack, run by hand; each prints a table and exits 1 if a row fails."""
