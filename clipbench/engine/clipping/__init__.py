"""Clipping rules applied to many lanes: how lanes are grouped, where a rule looks, and what it did."""
