"""Trials, their records and the table of measures: what every other folder shares."""
