"""What each command does, as functions that neither print nor exit."""
